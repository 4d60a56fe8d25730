//! HG-1: a trial boot without network, or with a registry that answers nonsense, is confirmed on
//! what the machine itself can show.

use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn a_trial_with_the_cable_out_is_confirmed() -> anyhow::Result<()> {
    let registry = Registry::start("link-down")?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = Template::of_release("v1")?.start("link-down")?;
    machine.route_registry(Some(registry.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    machine.mark_serial();
    guest::reboot(&machine)?;
    machine.set_link(false)?;
    machine.route_registry(None)?;
    machine.wait_serial(guest::CONFIRMED, guest::BOOT)?;
    machine.set_link(true)?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    Ok(())
}
