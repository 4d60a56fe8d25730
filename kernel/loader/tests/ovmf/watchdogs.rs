//! A kernel image that hangs, with the firmware's interrupts on and off.

use partition_layout::loader_plan::Reason;
use partition_layout::record::{Fault, Record, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::{WATCHDOG_I6300ESB, WATCHDOG_ITCO};

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::Uki;
use crate::{to_the_end, told};

fn one_try_of_b(record: &mut Record) {
    record.trial = Some(Slot::B);
    record.tries = 1;
}

/// Slot B hangs in its one try; the watchdog must bring the machine to slot A.
fn ends(name: &str, b: &str, watchdogs: u32, more: &[&str]) -> String {
    let folder = Folder::new(name);
    // A stub for the payload to start from memory, of no device.
    let inner = Uki { stub: "254", cmdline: "from=inner", ..Uki::default() }.build(&folder.0);
    let a = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let b = Uki { cmdline: b, ..Uki::default() }.build(&folder.0);
    let mut image = Contents {
        slots: [Some(&a), Some(&b)],
        record: Some(&one_try_of_b),
        watchdogs,
        beside: &[("EFI/test/inner.efi", &inner)],
        ..Contents::default()
    }
    .write(&folder.0);
    let more = more.iter().map(|&word| word.to_owned()).collect();
    let machine = Machine { hasty: true, more, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::A), "{serial}");
    assert_eq!(told.reasons, [Reason::TrialSpent(Slot::B)], "{serial}");
    assert_eq!(image.record().slot(Slot::B).fault, Fault::Spent);
    serial
}

#[test]
fn the_firmwares_watchdog_ends_a_kernel_that_waits_for_ever() {
    ends("waits_for_ever", "end=hang", 0, &[]);
}

/// A real halt: the stub of 254 insists on a device, finds none, says so and waits for ever.
#[test]
fn the_firmwares_watchdog_ends_a_stub_that_halts() {
    let serial = ends("a_stub_that_halts", "end=stub-of-no-device", 0, &[]);
    assert!(serial.contains("ssert"), "{serial}");
    assert!(!serial.contains("payload: options=from=inner"), "{serial}");
}

#[test]
fn the_6300esb_ends_a_processor_that_stands_still() {
    let device = ["-device", "i6300esb", "-action", "watchdog=reset"];
    let serial = ends("stands_still_esb", "end=stop", WATCHDOG_I6300ESB, &device);
    assert!(serial.contains("chipset watchdogs 0x1"), "{serial}");
}

#[test]
fn the_tco_ends_a_processor_that_stands_still() {
    let device = ["-global", "ICH9-LPC.noreboot=false", "-action", "watchdog=reset"];
    let serial = ends("stands_still_tco", "end=stop", WATCHDOG_ITCO, &device);
    assert!(serial.contains("chipset watchdogs 0x2"), "{serial}");
}

#[test]
fn a_watchdog_without_a_driver_in_the_kernel_is_not_armed() {
    let folder = Folder::new("without_a_driver");
    let a = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let image = Contents { slots: [Some(&a), None], ..Contents::default() }.write(&folder.0);
    let more = ["-device", "i6300esb"].map(str::to_owned).to_vec();
    let serial = Machine { more, ..Machine::default() }.run(&image.path, to_the_end);
    assert_eq!(told(&serial).watchdogs, 0, "{serial}");
}
