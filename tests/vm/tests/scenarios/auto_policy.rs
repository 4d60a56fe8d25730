//! Policy `auto`: the machine finds the update, applies it and reboots in its window, and nobody
//! touches it.

use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry};

#[test]
fn the_update_is_found_and_taken_in_the_window() -> anyhow::Result<()> {
    let registry = Registry::start("auto")?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = Template::of_release("v1")?.start("auto")?;
    let boot = guest::boot_id(&machine)?;
    machine.route_registry(Some(registry.port()))?;
    // The last act of a person: the policy, in the machine's own configuration.
    let edit = "sed -i -e 's/^policy.*/policy = \"auto\"/' -e '/^policy/a interval_s = 60' \
                /var/lib/bascule/config.toml && osupdate reload";
    machine.ssh()?.run(edit)?.ok(edit)?;
    guest::wait_back(&mut machine, &boot, 2, guest::FALL_BACK)?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    Ok(())
}
