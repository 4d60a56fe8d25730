//! containerd does not start: network, sshd and the updater run without it. The release does not
//! become healthy, so the other slot is not given up for another update.

use serde_json::Value;
use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn a_machine_without_containerd_is_reached_and_says_why() -> anyhow::Result<()> {
    let registry = Registry::start("no-containerd")?;
    registry.publish(&artifacts::release("v2")?)?;
    let disk = artifacts::release("no-containerd")?.disk();
    let mut machine = Machine::start(Options::new("no-containerd", &disk))?;
    machine.route_registry(Some(registry.port()))?;
    machine.wait_serial("containerd does not start", guest::BOOT)?;
    guest::wait_ssh(&mut machine, guest::SSH)?;
    assert_eq!(guest::running(&machine)?, (1, "a".to_owned()));
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    let kind = answer.pointer("/error/kind").and_then(Value::as_str);
    assert_eq!((code, kind), (2, Some("not-confirmed")), "{answer}");
    // It has asked the registry, and read and checked the release, to say this.
    assert_eq!(answer.get("release").and_then(Value::as_u64), Some(2), "{answer}");
    // Five starts, and then no more: each would be a second copy of every service.
    let starts = machine.serial().matches("start containerd:").count();
    assert_eq!(starts, 5, "containerd was not left down");
    Ok(())
}
