//! CK-1: the clock is unset, late or jumps; nothing that matters follows it. (SG-2, an update by a
//! clock that is decades off, is in `auto_policy` and `without_containerd`.)

use std::time::Duration;

use vm_tests::machine::{Machine, Options};
use vm_tests::ntp::TimeServer;
use vm_tests::{artifacts, guest, registry::Registry, wait};

/// Longer than chrony waits between two questions at first (64 s), several times.
const SYNC: Duration = Duration::from_secs(300);
/// A minute from the link to the right time, and room for a lease on a busy host.
const LINK_SYNC: Duration = Duration::from_secs(120);
const DAY_S: i64 = 86_400;
const YEARS_56_S: i64 = 56 * 365 * DAY_S;

/// An unset clock, the cable out until the boot is confirmed; then a trial during which the clock
/// jumps 56 years ahead, and after it one day back.
#[test]
fn a_late_clock_is_set_and_a_jump_moves_no_deadline() -> anyhow::Result<()> {
    let time = TimeServer::start()?;
    let registry = Registry::start("clock-jumps")?;
    registry.publish(&artifacts::release("v2")?)?;
    let servers = format!("policy = \"off\"\n[time]\nservers = [\"{}\"]\n", time.name());
    let disk = artifacts::disk_with(&artifacts::release("v1")?, "clock-jumps", &servers)?;
    let rtc = Some(guest::CLOCK_UNSET.to_owned());
    let mut machine = Machine::start(Options { rtc, ..Options::new("clock-jumps", &disk) })?;
    machine.set_link(false)?;
    machine.route_registry(Some(registry.port()))?;
    machine.wait_serial(guest::CONFIRMED, guest::BOOT)?;
    assert_eq!(time.answers(), 0, "the cable was out");
    machine.set_link(true)?;
    wait_clock(&machine, LINK_SYNC, "to be set once the link is up", |now| {
        now > guest::CLOCK_SET_S
    })?;
    let began = guest::clock(&machine)?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");

    time.be_ahead(YEARS_56_S);
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    wait_clock(&machine, SYNC, "to jump 56 years", |now| now > began + YEARS_56_S - DAY_S)?;
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

fn wait_clock(
    machine: &Machine,
    limit: Duration,
    what: &str,
    is: impl Fn(i64) -> bool,
) -> anyhow::Result<()> {
    wait::asking(&format!("the clock {what}"), limit, || {
        Ok(guest::clock(machine).ok().filter(|now| is(*now)).map(drop))
    })
}
