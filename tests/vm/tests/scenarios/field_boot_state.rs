//! A machine that ran well for months: its boot state and its table decay, somebody presses the
//! reset button, its disk grows. It stays where it is.

use serde_json::Value;
use vm_tests::disk::{self, Extent};
use vm_tests::guest;
use vm_tests::machine::{Machine, Options, qemu_img};
use vm_tests::stopped::Stopped;

const SECTOR: u64 = 512;

/// BR-3: the newest copy of the record ends in zeros. GP-4: the primary header of the table is
/// gone. BR-1: the reset button in the loader, in the kernel and before the gate. GP-2: the disk is
/// larger at the next start.
#[test]
fn damage_is_mended_and_told_and_resets_cost_nothing() -> anyhow::Result<()> {
    let updated = Stopped::updated()?;
    let mut machine = Machine::prepare(Options::new("field-boot-state", &updated.disk()))?;
    let record = updated.places()?.record;
    let newest = disk::newest_record(&machine.disk_file(), record)?;
    // From byte 256 on a record of a quiet life holds zeros anyway.
    disk::fill(&machine.disk_file(), Extent { offset: newest + 128, size: 384 }, 0)?;
    let header = Extent { offset: SECTOR, size: SECTOR };
    disk::fill(&machine.disk_file(), header, 0)?;

    machine.power_on()?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    let (_, status) = guest::osupdate(&machine, "status", guest::SSH)?;
    assert_eq!(status.get("record_damaged").and_then(Value::as_u64), Some(1), "{status}");
    assert_eq!(status.get("state").and_then(Value::as_str), Some("ok"), "{status}");
    let before = state_kib(&machine)?;
    machine.power_cut()?;
    assert!(disk::read(&machine.disk_file(), header)?.starts_with(b"EFI PART"), "not mended");

    qemu_img(&["resize", "-q", &machine.disk_file().display().to_string(), "+8G"])?;
    machine.mark_serial();
    machine.power_on()?;
    for stage in ["starting, watchdog", "booted slot", "starting containerd"] {
        machine.wait_serial(stage, guest::BOOT)?;
        machine.reset()?;
        machine.mark_serial();
    }
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    let (_, status) = guest::osupdate(&machine, "status", guest::SSH)?;
    assert_eq!(status.get("record_damaged").and_then(Value::as_u64), Some(0), "{status}");
    assert_eq!(status.get("trial"), Some(&Value::Null), "{status}");
    assert_eq!(status.get("quarantine"), Some(&serde_json::json!([])), "{status}");
    for slot in ["running", "other"] {
        let fault = status.get(slot).and_then(|slot| slot.get("fault"));
        assert_eq!(fault.and_then(Value::as_str), Some(""), "{status}");
    }
    let grown = state_kib(&machine)? - before;
    assert!(grown > 7 << 20, "state grew by {grown} KiB");
    Ok(())
}

fn state_kib(machine: &Machine) -> anyhow::Result<u64> {
    let said = machine.ssh()?.run("df --output=size /var | tail -1")?.ok("df /var")?;
    Ok(said.trim().parse()?)
}
