//! The loader on real firmware: each test makes a disk, starts a machine and reads what it says.
//!
//! `cargo xtask test loader` builds what these need and says where it is.

mod disk;
mod machine;
mod uki;

mod buses;
mod faults;
mod hand;
mod memory;
mod ordinary;
mod outside;
mod stubs;
mod variables;
mod watchdogs;

use partition_layout::boot_variable::BootVariable;

/// What the last payload that started was told in the variable.
fn told(serial: &str) -> BootVariable {
    told_each(serial).pop().unwrap_or_else(|| panic!("no payload started:\n{serial}"))
}

/// What each payload that started was told, in the order in which they started.
fn told_each(serial: &str) -> Vec<BootVariable> {
    let lines = serial.lines().filter_map(|line| line.split_once("payload: boot="));
    let decode = |text: &str| {
        let digits = (0..text.len() / 2).map(|at| &text[at * 2..at * 2 + 2]);
        let bytes: Vec<u8> =
            digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex digits")).collect();
        BootVariable::decode(&bytes).unwrap_or_else(|| panic!("no variable of ours:\n{serial}"))
    };
    lines.map(|(_, text)| decode(text.trim())).collect()
}

/// Never enough: the machine ends by itself.
fn to_the_end(_: &str) -> bool {
    false
}
