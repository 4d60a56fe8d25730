//! What decay does to a disk: an altered block, lost records.

use vm_tests::disk::{self, Extent, Places};
use vm_tests::machine::Machine;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry};

/// A machine that is off: v2 confirmed in slot B, v1 sealed in slot A.
fn updated(name: &str) -> anyhow::Result<(Machine, Places)> {
    let registry = Registry::start(name)?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = Template::of_release("v1")?.start(name)?;
    machine.route_registry(Some(registry.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?.0, 2);
    let places = Places::of(&guest::boot_facts(&machine)?)?;
    machine.ssh()?.run("sync")?;
    machine.power_cut()?;
    Ok((machine, places))
}

#[test]
fn an_altered_block_is_stopped_and_the_other_slot_runs() -> anyhow::Result<()> {
    let (mut machine, places) = updated("altered-block")?;
    // The beginning of the root file system: its superblock and directories.
    let root = Extent { offset: places.slot_b.offset + 4096, size: 1 << 20 };
    disk::fill(&machine.disk_file(), root, 0x5a)?;
    machine.power_on()?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::FALL_BACK)?, (1, "a".to_owned()));
    Ok(())
}

#[test]
fn without_any_record_the_trailers_decide() -> anyhow::Result<()> {
    let (mut machine, places) = updated("no-records")?;
    let record_places =
        Extent { offset: places.record.offset + (1 << 20), size: places.record.size - (1 << 20) };
    disk::fill(&machine.disk_file(), record_places, 0)?;
    machine.power_on()?;
    // The higher release, on trial with one try; then confirmed by its own gate.
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    Ok(())
}
