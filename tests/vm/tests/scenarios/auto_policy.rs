//! Policy `auto`: the machine finds the update, applies it and reboots in its window, and nobody
//! touches it.

use std::process::Command;

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

const CONFIG: &str = "\n[update]\nsource = \"10.0.2.100:5000/bascule/os:stable\"\n\
                      plain_http = true\npolicy = \"auto\"\ninterval_s = 20\n";

#[test]
fn the_update_is_found_and_taken_in_the_window() -> anyhow::Result<()> {
    let registry = Registry::start("auto")?;
    registry.publish(&artifacts::release("v2")?)?;
    let key = std::fs::read_to_string(artifacts::key("ssh.pub")?)?;
    let config = format!(
        "hostname = \"auto\"\nssh_keys = [\"{}\"]\n{CONFIG}window = \"{}\"\n",
        key.trim(),
        window()?
    );
    let disk = artifacts::disk_with(&artifacts::release("v1")?, "auto", &config)?;
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
