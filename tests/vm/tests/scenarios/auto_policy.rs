//! Policy `auto`: the machine finds the update, applies it and reboots in its window, and nobody
//! touches it.

use std::process::Command;

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn the_update_is_found_and_taken_in_the_window() -> anyhow::Result<()> {
    let registry = Registry::start("auto")?;
    registry.publish(&artifacts::release("v2")?)?;
    let policy = format!("policy = \"auto\"\ninterval_s = 20\nwindow = \"{}\"\n", window()?);
    let disk = artifacts::disk_with(&artifacts::release("v1")?, "auto", &policy)?;
    let mut machine = Machine::start(Options::new("auto", &disk))?;
    machine.route_registry(Some(registry.port()))?;
    guest::wait_back(&mut machine, "", 2, guest::FALL_BACK)?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    drop(machine);
    std::fs::remove_file(disk)?;
    Ok(())
}

/// A window that is open now and for some hours, in UTC.
fn window() -> anyhow::Result<String> {
    let hour = |when: &str| -> anyhow::Result<String> {
        let output = Command::new("date").args(["-u", "+%H:00", "-d", when]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    Ok(format!("{}-{}", hour("now")?, hour("4 hours")?))
}
