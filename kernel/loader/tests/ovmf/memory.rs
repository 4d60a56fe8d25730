//! FW-1: machines with much memory, with little, and with little below 4 GiB, each with a small, a
//! large and a very large kernel image, which start one after the other in one boot.

use partition_layout::loader_plan::Reason;
use partition_layout::record::{Cause, Target};
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::{COMES_BACK, SHIPPED_STUB, Uki};
use crate::{to_the_end, told_each};

const MB: u64 = 1_000_000;
const A: Target = Target::Slot(Slot::A);
const B: Target = Target::Slot(Slot::B);

/// A kernel image of 250 MB in slot A and one of 120 MB in slot B, which come back after they
/// have said how they were started, and one of 20 MB as recovery. The serial line.
fn boots(name: &str, memory_mib: u32, low_mib: Option<u32>) -> String {
    let folder = Folder::new(name);
    let image = |stub, cmdline, size_mb| {
        Uki { stub, cmdline, initrd_bytes: size_mb * MB, ..Uki::default() }.build(&folder.0)
    };
    let a = image(COMES_BACK, "from=a end=return", 250);
    let b = image(COMES_BACK, "from=b end=return", 120);
    let recovery = image(SHIPPED_STUB, "from=recovery", 20);
    let slots = [Some(a.as_slice()), Some(b.as_slice())];
    let disk =
        Contents { slots, recovery: Some(&recovery), ..Contents::default() }.write(&folder.0);
    let machine = Machine { memory_mib, low_mib, ..Machine::default() };
    machine.run(&disk.path, to_the_end)
}

/// The addresses that the loader's lines have behind `words`.
fn addresses(serial: &str, words: &str) -> Vec<u64> {
    let behind = serial.lines().filter_map(|line| line.split_once(words)?.1.split_once("at 0x"));
    let digits = |text: &str| text.chars().take_while(char::is_ascii_hexdigit).collect::<String>();
    behind.map(|(_, it)| u64::from_str_radix(&digits(it), 16).expect("an address")).collect()
}

/// Which of the three started, each told of the buffer below 4 GiB that the loader logs.
fn started(serial: &str) -> Vec<Target> {
    let buffers = addresses(serial, "bascule: reads through 1048576 bytes ");
    assert!(buffers.len() == 1 && buffers[0] < 1 << 32, "{serial}");
    let told = told_each(serial);
    assert!(told.iter().all(|told| told.buffer == buffers[0]), "{serial}");
    told.iter().map(|told| told.booted).collect()
}

#[test]
fn with_much_memory_all_sizes_start() {
    let serial = boots("much_memory", 8192, None);
    assert_eq!(started(&serial), [A, B, Target::Recovery], "{serial}");
}

#[test]
fn with_little_memory_below_4_gib_all_sizes_start() {
    let serial = boots("little_below_4_gib", 4096, Some(128));
    assert_eq!(started(&serial), [A, B, Target::Recovery], "{serial}");
    // The images are where there is room, the buffer is not.
    let images = addresses(&serial, ": release ");
    assert!(images.len() == 2 && images.iter().all(|&it| it >= 1 << 32), "{serial}");
}

/// The largest is twice in memory while it is loaded, which is too much for this machine: the
/// firmware has no room for its copy. That is said, and the other slot starts in the same boot.
#[test]
fn an_image_too_large_for_the_machine_leads_to_the_other_slot() {
    let serial = boots("little_memory", 512, None);
    assert_eq!(started(&serial), [B, Target::Recovery], "{serial}");
    assert!(serial.contains("slot A: kernel image refused, OUT_OF_RESOURCES"), "{serial}");
    assert_eq!(reason(&serial), Reason::LoadFailed(Slot::A, Cause::Refused));
}

/// Here the loader has none even for the first copy.
#[test]
fn images_too_large_for_the_machine_lead_to_recovery() {
    let serial = boots("very_little_memory", 256, None);
    assert_eq!(started(&serial), [Target::Recovery], "{serial}");
    assert!(serial.contains("slot A: no memory for 250"), "{serial}");
    assert_eq!(reason(&serial), Reason::LoadFailed(Slot::A, Cause::Unreadable));
}

/// What the first payload that started was told first.
fn reason(serial: &str) -> Reason {
    told_each(serial)[0].reasons[0]
}
