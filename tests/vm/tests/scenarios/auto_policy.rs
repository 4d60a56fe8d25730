//! Policy `auto`: the machine finds the update, applies it and reboots in its window, and nobody
//! touches it. SG-2: its clock is decades ahead of the release's day.

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn the_update_is_found_and_taken_in_the_window_in_2050() -> anyhow::Result<()> {
    let registry = Registry::start("auto")?;
    registry.publish(&artifacts::release("v2")?)?;
    let policy = "policy = \"auto\"\ninterval_s = 20\nwindow = \"11:00-15:00\"\n";
    let disk = artifacts::disk_with(&artifacts::release("v1")?, "auto", policy)?;
    let rtc = Some("base=2050-01-01T12:00:00".to_owned());
    let mut machine = Machine::start(Options { rtc, ..Options::new("auto", &disk) })?;
    machine.route_registry(Some(registry.port()))?;
    guest::wait_back(&mut machine, "", 2, guest::FALL_BACK)?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    let years = machine.ssh()?.run("date +%Y")?.ok("date")?;
    assert_eq!(years.trim(), "2050");
    drop(machine);
    std::fs::remove_file(disk)?;
    Ok(())
}
