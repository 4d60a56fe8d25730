//! What decay does to a disk: an altered block, lost records, a state that is no file system.

use std::fs;

use serde_json::Value;
use vm_tests::disk::{self, Extent};
use vm_tests::host_tool::{run as tool, show};
use vm_tests::machine::{Machine, Options, raw_copy};
use vm_tests::stopped::Stopped;
use vm_tests::{artifacts, guest};

#[test]
fn an_altered_block_is_stopped_and_the_other_slot_runs() -> anyhow::Result<()> {
    let updated = Stopped::updated()?;
    let mut machine = Machine::prepare(Options::new("altered-block", &updated.disk()))?;
    // The beginning of the root file system: its superblock and directories.
    let root = Extent { offset: updated.places()?.slot_b.offset + 4096, size: 1 << 20 };
    disk::fill(&machine.disk_file(), root, 0x5a)?;
    machine.power_on()?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::FALL_BACK)?, (1, "a".to_owned()));
    Ok(())
}

/// The trailers decide which release starts; the state partition, whose entry is gone from the
/// table, is found where it was, with all that is in it.
#[test]
fn neither_a_lost_record_nor_a_lost_entry_of_the_table_loses_anything() -> anyhow::Result<()> {
    let updated = Stopped::updated()?;
    let raw = artifacts::work_dir().join("no-records.raw");
    raw_copy(&updated.disk(), &raw)?;
    tool("sgdisk", &["--delete", "5", &show(&raw)])?;
    let mut machine = Machine::prepare(Options::new("no-records", &raw))?;
    let record = updated.places()?.record;
    let places = Extent { offset: record.offset + (1 << 20), size: record.size - (1 << 20) };
    disk::fill(&machine.disk_file(), places, 0)?;
    machine.power_on()?;
    // The higher release, on trial with one try; then confirmed by its own gate.
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    let facts = guest::boot_facts(&machine)?;
    assert_eq!(facts.get("state").and_then(Value::as_str), Some("ok"), "{facts}");
    let (_, history) = guest::osupdate(&machine, "history", guest::SSH)?;
    assert!(history.to_string().contains("0.2.0"), "the update of before: {history}");
    fs::remove_file(&raw)?;
    Ok(())
}

/// The user's data is never formatted, no slot is blamed, and somebody can come and look.
#[test]
fn a_broken_state_leaves_a_machine_that_is_up_and_says_so() -> anyhow::Result<()> {
    let updated = Stopped::updated()?;
    let mut machine = Machine::prepare(Options::new("broken-state", &updated.disk()))?;
    let slot = updated.places()?.slot_b;
    // The state partition follows slot B; its beginning holds the superblock.
    let state = Extent { offset: slot.offset + slot.size, size: 64 << 20 };
    disk::fill(&machine.disk_file(), state, 0x5a)?;
    machine.power_on()?;
    machine.wait_serial("state is degraded", guest::BOOT)?;
    guest::wait_ssh(&mut machine, guest::SSH)?;
    let facts = guest::boot_facts(&machine)?;
    assert_eq!(facts.get("state").and_then(Value::as_str), Some("degraded"), "{facts}");
    assert_eq!(guest::running(&machine)?, (2, "b".to_owned()));
    machine.power_cut()?;
    let left = disk::read(&machine.disk_file(), Extent { size: 1 << 20, ..state })?;
    assert!(left.iter().all(|byte| *byte == 0x5a), "the state partition was written to");
    Ok(())
}
