//! containerd does not start: network, sshd and the updater run without it, and an update mends
//! the machine.

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn a_machine_without_containerd_is_reached_and_mended() -> anyhow::Result<()> {
    let registry = Registry::start("no-containerd")?;
    registry.publish(&artifacts::release("v2")?)?;
    let disk = artifacts::release("no-containerd")?.disk();
    let mut machine = Machine::start(Options::new("no-containerd", &disk))?;
    machine.route_registry(Some(registry.port()))?;
    machine.wait_serial("containerd does not start", guest::BOOT)?;
    guest::wait_ssh(&mut machine, guest::SSH)?;
    assert_eq!(guest::running(&machine)?, (1, "a".to_owned()));
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    Ok(())
}
