//! FW-7: whatever the firmware's variables say, and although they forget the disk, the fallback
//! path brings up the same slot; and whatever happens, the ESP stays as it is.

use partition_layout::record::{Fault, Record, Target};
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::Uki;
use crate::{to_the_end, told};

const A: Target = Target::Slot(Slot::A);

fn two_tries_of_b(record: &mut Record) {
    record.trial = Some(Slot::B);
    record.tries = 2;
    record.slot_mut(Slot::B).proven = false;
}

#[test]
fn dead_entries_a_lost_disk_and_tries_change_neither_slot_nor_esp() {
    let folder = Folder::new("dead_entries");
    let image = |cmdline| Uki { cmdline, ..Uki::default() }.build(&folder.0);
    let (a, b) = (image("from=a entries=dead"), image("from=b end=reset"));
    let recovery = image("from=recovery");
    let slots = [Some(a.as_slice()), Some(b.as_slice())];
    let recovery = Some(recovery.as_slice());
    let record: Option<&dyn Fn(&mut Record)> = Some(&two_tries_of_b);
    let mut disk = Contents { slots, recovery, record, ..Contents::default() }.write(&folder.0);
    let esp = disk.esp_sha256();
    // A server for the network's boot that names a file and does not have it.
    let server = format!("user,id=net,tftp={},bootfile=absent.efi", folder.0.display());
    let network = ["-netdev", &server, "-device", "virtio-net-pci,netdev=net,romfile="];
    let more = network.map(str::to_owned).to_vec();
    let new = Machine { more, ..Machine::default() };
    let kept = Machine { keeps_variables: true, ..new.clone() };

    // New variables. B uses up its tries; A then leaves entries that do not lead to this disk.
    let serial = new.run(&disk.path, to_the_end);
    assert_eq!(serial.matches("payload: end=reset\n").count(), 2, "{serial}");
    assert_eq!(told(&serial).booted, A, "{serial}");
    assert!(serial.contains("payload: entries left, Ok(())"), "{serial}");
    assert_eq!(disk.record().slot(Slot::B).fault, Fault::Spent);

    // The network first, then the dead ones: all are tried, none starts.
    let serial = kept.run(&disk.path, to_the_end);
    for tried in ["\"UEFI PXEv4", "\"Dead System\"", "\"Dead Disk\""] {
        let failed = |line: &str| line.contains("failed to load") && line.contains(tried);
        assert!(serial.lines().any(failed), "{tried}: {serial}");
    }
    assert_eq!(told(&serial).booted, A, "{serial}");

    // Without its disk, the firmware forgets the entry for it; then the disk is back.
    let without = Machine { without_disk: true, more: Vec::new(), ..kept.clone() };
    let serial = without.run(&disk.path, |text| text.contains("Shell>"));
    assert!(!serial.contains("bascule:"), "{serial}");
    let serial = kept.run(&disk.path, |text| text.contains("Shell> "));
    assert_eq!(told(&serial).booted, A, "{serial}");

    let generation = disk.record().generation;
    let serial = new.run(&disk.path, to_the_end);
    assert_eq!(told(&serial).booted, A, "{serial}");
    assert_eq!(disk.record().generation, generation + 1, "each start writes the record");
    assert!(disk.esp_sha256() == esp, "the ESP was written to");
}
