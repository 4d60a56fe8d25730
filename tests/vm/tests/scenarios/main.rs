//! All whole-system scenarios, one file each. `cargo xtask images` must have run.

mod apply_confirm_rollback;
mod auto_policy;
mod back_by_itself;
mod boot_healthy;
mod boot_secure;
mod both_slots_broken;
mod broken_disk;
mod broken_download;
mod clocks;
mod copies;
mod engines;
mod field_boot_state;
mod firmware;
mod full_state;
mod harness;
mod network_during_trial;
mod power_cut;
mod power_cut_anywhere;
mod power_cut_at_random;
mod power_cut_stream;
mod rebuild;
mod refusals;
mod services;
mod stock_tools;
mod two_sizes;
mod without_containerd;
