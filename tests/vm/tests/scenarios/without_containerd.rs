//! containerd does not start: network, sshd and the updater run without it. The release does not
//! become healthy, but the other slot is no way back either, so an update mends the machine. SG-2:
//! its clock is not set, and the update's signature is good all the same.

use serde_json::Value;
use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn a_machine_without_containerd_is_reached_and_mended_by_an_update() -> anyhow::Result<()> {
    let registry = Registry::start("no-containerd")?;
    registry.publish(&artifacts::release("v2")?)?;
    let disk = artifacts::release("no-containerd")?.disk();
    let rtc = Some(guest::CLOCK_UNSET.to_owned());
    let mut machine = Machine::start(Options { rtc, ..Options::new("no-containerd", &disk) })?;
    machine.route_registry(Some(registry.port()))?;
    machine.wait_serial("containerd does not start", guest::BOOT)?;
    guest::wait_ssh(&mut machine, guest::SSH)?;
    assert_eq!(guest::running(&machine)?, (1, "a".to_owned()));
    let (code, answer) = guest::osupdate(&machine, "check", guest::APPLY)?;
    let release = answer.get("release").and_then(Value::as_u64);
    assert_eq!((code, release), (0, Some(2)), "{answer}");
    // Five starts, and then no more: each would be a second copy of every service.
    let starts = machine.serial().matches("start containerd:").count();
    assert_eq!(starts, 5, "containerd was not left down");

    // Nothing is lost with what is in the other slot, so an update may mend the machine.
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    let now = guest::clock(&machine)?;
    assert!(now < guest::CLOCK_SET_S, "something has set the clock: {now}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    Ok(())
}
