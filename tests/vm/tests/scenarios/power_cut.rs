//! The power goes right after an update was applied.

use vm_tests::machine::{Machine, Options};
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry, write_log};

/// UP-1: what had not been flushed when `apply` returned is gone, and the new release boots.
#[test]
fn cut_right_after_apply_boots_the_new_release() -> anyhow::Result<()> {
    let registry = Registry::start("cut-after")?;
    registry.publish(&artifacts::release("v2")?)?;
    let template = Template::of_release("v1")?;
    let mut machine = template.start_with("cut-after", |options| options.write_log = true)?;
    machine.route_registry(Some(registry.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    machine.power_cut()?;
    assert_eq!(code, 0, "{answer}");

    let base = machine.dir().join("base.qcow2");
    let flushed = machine.dir().join("flushed.raw");
    template.disk(&base)?;
    let replayed = write_log::flushed_disk(&base, &machine.write_log_file(), &flushed)?;
    assert!(replayed.bytes > 100_000_000, "the log holds the slot: {replayed:?}");
    // Its folder stays, and with it what was made there.
    drop(machine);
    std::fs::remove_file(&base)?;
    let mut machine = Machine::start(Options::new("cut-after-boot", &flushed))?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    drop(machine);
    std::fs::remove_file(&flushed)?;
    Ok(())
}
