//! SG-2, CK-1: the clock is decades off, unset, late or jumps; nothing that matters follows it.

use std::time::Duration;

use vm_tests::machine::{Machine, Options};
use vm_tests::ntp::TimeServer;
use vm_tests::{artifacts, guest, registry::Registry, wait};

/// Longer than chrony waits between two questions at first (64 s), several times.
const SYNC: Duration = Duration::from_secs(300);
const DAY_S: i64 = 86_400;
const YEARS_56_S: i64 = 56 * 365 * DAY_S;
/// The beginning of 2026: no clock that was set is before it.
const SET_S: i64 = 1_767_225_600;

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

/// 1970, the cable out until the boot is confirmed; then a trial during which the clock jumps 56
/// years ahead, and after it one day back.
#[test]
fn a_late_clock_is_set_and_a_jump_moves_no_deadline() -> anyhow::Result<()> {
    let time = TimeServer::start()?;
    let registry = Registry::start("clock-jumps")?;
    registry.publish(&artifacts::release("v2")?)?;
    let servers = format!("policy = \"off\"\n[time]\nservers = [\"{}\"]\n", time.name());
    let disk = artifacts::disk_with(&artifacts::release("v1")?, "clock-jumps", &servers)?;
    let rtc = Some("base=1970-01-01".to_owned());
    let mut machine = Machine::start(Options { rtc, ..Options::new("clock-jumps", &disk) })?;
    machine.set_link(false)?;
    machine.route_registry(Some(registry.port()))?;
    machine.wait_serial(guest::CONFIRMED, guest::BOOT)?;
    assert_eq!(time.answers(), 0, "the cable was out");
    machine.set_link(true)?;
    wait_clock(&machine, "to be set once the link is up", |now| now > SET_S)?;
    let began = clock(&machine)?;

    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    time.be_ahead(YEARS_56_S);
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    wait_clock(&machine, "to jump 56 years", |now| now > began + YEARS_56_S - DAY_S)?;
    // The clock may follow or not: it is stepped at the first answers only.
    time.be_ahead(YEARS_56_S - DAY_S);
    let answers = time.answers();
    wait::until("the time server to be asked again", SYNC, || {
        Ok((time.answers() > answers + 1).then_some(()))
    })?;

    // Everything still turns: the same boot, confirmed, and the daemon answers.
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    let (code, answer) = guest::osupdate(&machine, "check", guest::APPLY)?;
    assert_eq!(code, 1, "{answer}");
    let (_, history) = guest::osupdate(&machine, "history", guest::APPLY)?;
    assert!(!history.to_string().contains("health gate failed"), "{history}");
    drop(machine);
    std::fs::remove_file(disk)?;
    Ok(())
}

/// Seconds since 1970 on the machine.
fn clock(machine: &Machine) -> anyhow::Result<i64> {
    let text = machine.ssh()?.run("date +%s")?.ok("date")?;
    Ok(text.trim().parse()?)
}

fn wait_clock(machine: &Machine, what: &str, is: impl Fn(i64) -> bool) -> anyhow::Result<()> {
    wait::asking(&format!("the clock {what}"), SYNC, || {
        Ok(clock(machine).ok().filter(|now| is(*now)).map(drop))
    })
}
