//! The system calls of the running system that need `unsafe`, and nothing else.
//!
//! Decides nothing: a function here does one thing to one device and says what the kernel said.
//! Sources are the kernel's own headers, named in each module.

pub mod block;
pub mod device_mapper;
pub mod file_disk;
pub mod network;
pub mod signals;
pub mod terminal;
pub mod watchdog;

pub use file_disk::FileDisk;
