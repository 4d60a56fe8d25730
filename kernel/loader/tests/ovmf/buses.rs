//! FW-2: the same content on every kind of disk, with both sector sizes. SD cards are left out:
//! the firmware at hand has no driver for them.

use partition_layout::record::Target;
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Bus, Folder, Machine};
use crate::uki::Uki;
use crate::{to_the_end, told};

fn starts(bus: Bus, sector: u32) {
    let folder = Folder::new(&format!("{bus:?}_{sector}"));
    // Larger than one transfer, and no multiple of any sector.
    let uki = Uki { cmdline: "from=a", initrd_bytes: 5_000_001, ..Uki::default() };
    let kernel = uki.build(&folder.0);
    let contents = Contents { sector, slots: [Some(&kernel), None], ..Contents::default() };
    let mut image = contents.write(&folder.0);
    let machine = Machine { bus, sector, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::A), "{serial}");
    assert_eq!(told.sector_size, sector);
    assert!(told.record_written, "{serial}");
    assert_eq!(image.record().nonce, told.nonce);
}

#[test]
fn virtio_4096() {
    starts(Bus::Virtio, 4096);
}

#[test]
fn scsi_512() {
    starts(Bus::Scsi, 512);
}

#[test]
fn scsi_4096() {
    starts(Bus::Scsi, 4096);
}

#[test]
fn sata_512() {
    starts(Bus::Ahci, 512);
}

#[test]
fn usb_512() {
    starts(Bus::Usb, 512);
}

#[test]
fn nvme_with_small_transfers_512() {
    starts(Bus::Nvme, 512);
}

#[test]
fn nvme_with_small_transfers_4096() {
    starts(Bus::Nvme, 4096);
}
