//! All whole-system scenarios, one file each. `cargo xtask images` must have run.

mod boot_healthy;
mod harness;
