//! Power cuts at moments that nothing has chosen, in the middle of updates, boots and rollbacks.

use vm_tests::prove::kills;

/// `cargo xtask prove --full` cuts a hundred times.
const TIMES: u32 = 3;
const SEED: u64 = 1;

#[test]
fn a_machine_comes_back_whenever_its_power_goes() -> anyhow::Result<()> {
    kills::run("power-cut-at-random", TIMES, SEED)
}
