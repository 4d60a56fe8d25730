//! What the loader knows that needs no firmware, so that it is tested and fuzzed on any machine.
//!
//! Reading order: [`device_path`] (whose disk, which partition), [`smbios`] (strings that must not
//! reach a kernel), [`clock`] (the time), [`line`](mod@line) (text for a console that may be absent).
//! [`chipset`] (watchdogs that outlive the firmware), [`slots`] (what lies on the disk), [`session`]
//! (one boot, from the record to the start of a kernel).
//! The program itself is `main.rs`; the rules it follows are `partition_layout::boot_state`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod chipset;
pub mod clock;
pub mod device_path;
pub mod line;
pub mod session;
pub mod slots;
pub mod smbios;
