//! FW-1: machines with much memory, with little, and with little below 4 GiB; large images.

use partition_layout::record::Target;
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::Uki;
use crate::{to_the_end, told};

const MIB: usize = 1024 * 1024;

fn starts(name: &str, image_mib: usize, memory_mib: u32, low_mib: Option<u32>) {
    let folder = Folder::new(name);
    let uki = Uki { cmdline: "from=a", initrd_bytes: image_mib * MIB, ..Uki::default() };
    let kernel = uki.build(&folder.0);
    let image = Contents { slots: [Some(&kernel), None], ..Contents::default() }.write(&folder.0);
    let machine = Machine { memory_mib, low_mib, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::A), "{serial}");
    assert!(told.buffer < 1 << 32, "{serial}");
    assert!(serial.contains("bascule: reads through 1048576 bytes at 0x"), "{serial}");
}

#[test]
fn much_memory_and_an_ordinary_image() {
    starts("much_memory", 20, 8192, None);
}

#[test]
fn much_memory_and_the_largest_image() {
    starts("the_largest_image", 250, 8192, None);
}

#[test]
fn little_memory_below_4_gib() {
    starts("little_below_4_gib", 20, 4096, Some(128));
}

#[test]
fn little_memory_below_4_gib_and_a_large_image() {
    starts("large_and_little_below", 120, 4096, Some(128));
}

#[test]
fn little_memory_and_an_ordinary_image() {
    starts("little_memory", 20, 512, None);
}

#[test]
fn little_memory_and_a_large_image() {
    starts("a_large_image", 120, 512, None);
}

/// Twice in memory is too much for this machine: that is said, and the other slot starts.
#[test]
fn an_image_too_large_for_the_machine_leads_to_the_other_slot() {
    let folder = Folder::new("too_large");
    let large = Uki { initrd_bytes: 250 * MIB, ..Uki::default() }.build(&folder.0);
    let small = Uki { cmdline: "from=b", ..Uki::default() }.build(&folder.0);
    let image =
        Contents { slots: [Some(&large), Some(&small)], ..Contents::default() }.write(&folder.0);
    let machine = Machine { memory_mib: 384, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    assert_eq!(told(&serial).booted, Target::Slot(Slot::B), "{serial}");
    let said = ["slot A: no memory for", "slot A: kernel image refused, OUT_OF_RESOURCES"];
    assert!(said.iter().any(|line| serial.contains(line)), "{serial}");
}
