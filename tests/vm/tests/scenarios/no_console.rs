//! A machine without a serial port and without a screen, though its command line names both.

use std::time::Duration;

use anyhow::{Context as _, Result};
use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, wait};

/// Longer than it takes a login to fail.
const AGAIN: Duration = Duration::from_secs(15);

/// IN-1: it boots all the same, and nothing tries a login where there is no line for it.
#[test]
fn a_machine_without_consoles_boots_as_any_other() -> Result<()> {
    let disk = artifacts::release("v1")?.disk();
    let machine = Machine::start(Options { consoles: false, ..Options::new("no-console", &disk) })?;
    wait::asking("the boot to be confirmed", guest::BOOT, || {
        let (_, status) = guest::osupdate(&machine, "status", guest::SSH)?;
        let confirmed = status.get("confirmed").and_then(serde_json::Value::as_bool);
        Ok((confirmed == Some(true)).then_some(()))
    })?;
    let (_, status) = guest::osctl(&machine, "status")?;
    let attention = status.get("attention").and_then(|it| it.as_array()).context("attention")?;
    assert!(attention.is_empty(), "{attention:?}");
    let serial = machine.ssh()?.run("pgrep -af 'agetty.*ttyS'")?;
    assert_eq!(serial.code, 1, "a login on a port that is not there: {}", serial.stdout);
    wait::moment(AGAIN);
    let log = machine.ssh()?.run("osctl service logs console")?.ok("logs")?;
    assert!(!log.contains("ended at once"), "a login is started again and again: {log}");
    assert!(machine.serial().is_empty(), "there is a port: {}", machine.serial());
    Ok(())
}
