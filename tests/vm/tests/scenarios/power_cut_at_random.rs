//! Power cuts at moments that nothing has chosen, in the middle of updates, boots and rollbacks, and
//! just after a first boot.

use vm_tests::prove::kills;

/// `cargo xtask prove --full` cuts a hundred times.
const TIMES: u32 = 3;
const SEED: u64 = 1;
/// And fifty new machines.
const FIRST_BOOTS: u32 = 1;

#[test]
fn a_machine_comes_back_whenever_its_power_goes() -> anyhow::Result<()> {
    kills::run("power-cut-at-random", TIMES, SEED)
}

/// ST-6: cut within ten seconds of the first login, a machine lets people in again and is the same.
#[test]
fn a_new_machine_stays_who_it_is() -> anyhow::Result<()> {
    kills::first_boots("power-cut-first-boot", FIRST_BOOTS, SEED)
}
