//! The loader on real firmware: each test makes a disk, starts a machine and reads what it says.
//!
//! `cargo xtask test loader` builds what these need and says where it is.

mod disk;
mod machine;
mod uki;

mod buses;
mod faults;
mod hand;
mod ordinary;
mod outside;
mod stubs;
mod watchdogs;

use partition_layout::boot_variable::BootVariable;

/// What the payload was told in the variable, from the last of its lines.
fn told(serial: &str) -> BootVariable {
    let line = serial.lines().rev().find_map(|line| line.split_once("payload: boot="));
    let text = line.unwrap_or_else(|| panic!("no payload started:\n{serial}")).1.trim();
    let bytes: Vec<u8> = (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).expect("hex digits"))
        .collect();
    BootVariable::decode(&bytes).unwrap_or_else(|| panic!("no variable of ours:\n{serial}"))
}

/// Never enough: the machine ends by itself.
fn to_the_end(_: &str) -> bool {
    false
}
