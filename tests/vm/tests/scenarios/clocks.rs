//! SG-2, CK-1: the clock is decades off, or unset; nothing that matters follows it.

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

fn updates_with_clock(name: &str, base: &str) -> anyhow::Result<()> {
    let registry = Registry::start(name)?;
    registry.publish(&artifacts::release("v2")?)?;
    let disk = artifacts::release("v1")?.disk();
    let options = Options { rtc: Some(format!("base={base}")), ..Options::new(name, &disk) };
    let mut machine = Machine::start(options)?;
    machine.route_registry(Some(registry.port()))?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?.0, 1);
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "the signature does not depend on the clock: {answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?.0, 2);
    Ok(())
}

#[test]
fn in_the_year_1970() -> anyhow::Result<()> {
    updates_with_clock("clock-1970", "1970-01-01")
}

#[test]
fn in_the_year_2050() -> anyhow::Result<()> {
    updates_with_clock("clock-2050", "2050-01-01")
}
