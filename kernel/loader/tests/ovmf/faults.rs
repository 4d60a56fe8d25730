//! What cannot be started, and what starts instead, in the same boot.

use partition_layout::loader_plan::Reason;
use partition_layout::record::{Cause, Fault, Record, Target};
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::{Kernel, Uki};
use crate::{to_the_end, told};

fn kernel(folder: &Folder, cmdline: &str) -> Vec<u8> {
    Uki { cmdline, ..Uki::default() }.build(&folder.0)
}

#[test]
fn an_altered_kernel_leads_to_the_other_slot() {
    let folder = Folder::new("an_altered_kernel");
    let (a, b) = (kernel(&folder, "from=a"), kernel(&folder, "from=b"));
    let mut image =
        Contents { slots: [Some(&a), Some(&b)], ..Contents::default() }.write(&folder.0);
    image.alter_kernel(Slot::A);
    let serial = Machine::default().run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::B), "{serial}");
    assert_eq!(told.reasons, [Reason::LoadFailed(Slot::A, Cause::Unreadable)]);
    assert!(serial.contains("slot A: kernel image differs"), "{serial}");
    let record = image.record();
    assert_eq!((record.nonce, record.slot(Slot::A).fault), (told.nonce, Fault::Load));
}

#[test]
fn a_kernel_that_returns_leads_to_the_other_slot() {
    let folder = Folder::new("a_kernel_that_returns");
    let a = Uki { kernel: Kernel::Nothing, ..Uki::default() }.build(&folder.0);
    let b = kernel(&folder, "from=b");
    let mut image =
        Contents { slots: [Some(&a), Some(&b)], ..Contents::default() }.write(&folder.0);
    let serial = Machine::default().run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::B), "{serial}");
    assert_eq!(told.reasons, [Reason::LoadFailed(Slot::A, Cause::Returned)]);
    assert_eq!(image.record().slot(Slot::A).cause, Cause::Returned);
}

#[test]
fn what_is_no_program_leads_to_the_other_slot() {
    let folder = Folder::new("what_is_no_program");
    let b = kernel(&folder, "from=b");
    let a = vec![0x90; 300_000];
    let image = Contents { slots: [Some(&a), Some(&b)], ..Contents::default() }.write(&folder.0);
    let told = told(&Machine::default().run(&image.path, to_the_end));
    assert_eq!(told.booted, Target::Slot(Slot::B));
    assert_eq!(told.reasons, [Reason::LoadFailed(Slot::A, Cause::Refused)]);
}

#[test]
fn with_both_slots_broken_recovery_starts() {
    let folder = Folder::new("both_slots_broken");
    let a = kernel(&folder, "from=a");
    let b = Uki { kernel: Kernel::Nothing, ..Uki::default() }.build(&folder.0);
    let recovery = kernel(&folder, "from=recovery");
    let mut image =
        Contents { slots: [Some(&a), Some(&b)], recovery: Some(&recovery), ..Contents::default() }
            .write(&folder.0);
    image.alter_kernel(Slot::A);
    let serial = Machine::default().run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Recovery, "{serial}");
    assert!(serial.contains("payload: options=from=recovery\n"), "{serial}");
    // The record partition: it never has a file system, so nothing lies beside the image.
    assert!(serial.contains("payload: part=03030303-"), "{serial}");
    assert_eq!(image.record().last.target, Some(Target::Recovery));
}

#[test]
fn with_nothing_left_the_firmware_goes_on() {
    let folder = Folder::new("nothing_left");
    let image = Contents::default().write(&folder.0);
    let end = "back to the firmware";
    let serial = Machine::default().run(&image.path, |text| text.contains(end));
    assert!(serial.contains("recovery: cannot read"), "{serial}");
    assert!(serial.contains(end), "{serial}");
}

#[test]
fn with_the_record_lost_the_trailers_decide() {
    let folder = Folder::new("the_record_lost");
    let (a, b) = (kernel(&folder, "from=a"), kernel(&folder, "end=reset"));
    let mut image =
        Contents { slots: [Some(&a), Some(&b)], ..Contents::default() }.write(&folder.0);
    image.damage_record();
    // B has the higher release: it is tried once, resets, and A is what remains.
    let serial = Machine::default().run(&image.path, to_the_end);
    assert!(serial.contains("payload: end=reset\n"), "{serial}");
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::A), "{serial}");
    assert_eq!(told.reasons, [Reason::TrialSpent(Slot::B)]);
    assert_eq!(serial.matches("no valid record").count(), 1, "{serial}");
    assert_eq!(image.record().slot(Slot::B).fault, Fault::Spent);
}

fn trial_of_b(record: &mut Record) {
    record.trial = Some(Slot::B);
    record.tries = 2;
    record.slot_mut(Slot::B).proven = false;
}

#[test]
fn a_trial_has_its_tries_and_no_more() {
    let folder = Folder::new("a_trial_has_its_tries");
    let (a, b) = (kernel(&folder, "from=a"), kernel(&folder, "end=reset"));
    let image =
        Contents { slots: [Some(&a), Some(&b)], record: Some(&trial_of_b), ..Contents::default() }
            .write(&folder.0);
    let serial = Machine::default().run(&image.path, to_the_end);
    assert_eq!(serial.matches("payload: end=reset\n").count(), 2, "{serial}");
    assert_eq!(told(&serial).booted, Target::Slot(Slot::A), "{serial}");
}

#[test]
fn without_writing_a_trial_is_left_out_and_the_default_starts() {
    let folder = Folder::new("without_writing");
    let (a, b) = (kernel(&folder, "from=a"), kernel(&folder, "from=b"));
    let mut image =
        Contents { slots: [Some(&a), Some(&b)], record: Some(&trial_of_b), ..Contents::default() }
            .write(&folder.0);
    let before = image.record();
    let machine = Machine { read_only: true, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::A), "{serial}");
    assert!(!told.record_written);
    assert_eq!(told.reasons, [Reason::NotWritable]);
    assert_eq!(image.record(), before);
}
