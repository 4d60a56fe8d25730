//! The harness of the whole-system tests: real images in real virtual machines.
//!
//! Reading order: [`machine`] (a QEMU with our disk), [`qmp`] and [`ssh`] (how it is steered),
//! [`template`] and [`stopped`] (boot once, start many, by [`kept`]), [`registry`] and [`release`] (what it
//! updates from), [`service_image`] (what a user's service is made of), [`ntp`] (the time it is told),
//! [`write_log`] (what a power cut leaves), [`limit`] (two machines a processor), [`prove`] (all power
//! cuts of a recorded update).
//! The scenarios are in `tests/scenarios/`, one file each.

pub mod accel;
pub mod artifacts;
pub mod demo;
pub mod disk;
pub mod guest;
pub mod host_tool;
pub mod http;
pub mod kept;
pub mod limit;
pub mod machine;
pub mod ntp;
pub mod prove;
pub mod qmp;
pub mod registry;
pub mod release;
pub mod service_image;
pub mod ssh;
pub mod stopped;
pub mod template;
pub mod wait;
pub mod write_log;
