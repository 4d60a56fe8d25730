//! One boot over a simulated disk: what is started, and what is on the disk by then.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use std::fmt::Arguments;

use loader::session::{Boot, Hands, Runs, Session, newest};
use loader::slots::Slots;
use partition_layout::boot_state::{ImageFacts, Reason, factory, sealed};
use partition_layout::boot_variable::BootVariable;
use partition_layout::disk::Region;
use partition_layout::gpt::Table;
use partition_layout::guid::{self, Guid};
use partition_layout::layout::MIB;
use partition_layout::loader_plan::Start;
use partition_layout::places::{self, PLACES, STRIDE};
use partition_layout::record::{Cause, Fault, Record, Target};
use partition_layout::slot::Slot::{self, A, B};
use partition_layout::slot_image::{BLOCK, Header, Trailer};
use sha2::{Digest as _, Sha256};
use strict_disk::{Fate, StrictDisk};

const SIZE: u64 = 64 * MIB;
const RECORD_AT: u64 = MIB;
const SLOT_AT: [u64; 2] = [17 * MIB, 18 * MIB];
const UKI_AT: u64 = 4 * BLOCK;
const DISK_ID: [u8; 16] = [5; 16];
const NONCE: [u8; 16] = [9; 16];

/// A kernel image: no whole number of sectors.
fn kernel(release: u64) -> Vec<u8> {
    (0..5000_u64).map(|at| (at * 7 + release).to_le_bytes()[0]).collect()
}

/// What the loader reads of a slot image.
fn image(release: u64) -> Vec<u8> {
    let kernel = kernel(release);
    let trailer_at = UKI_AT + 2 * BLOCK;
    let trailer = Trailer {
        data_size: 2 * BLOCK,
        hash_size: 2 * BLOCK,
        uki_at: UKI_AT,
        uki_size: kernel.len() as u64,
        uki_sha256: Sha256::digest(&kernel).into(),
        root_hash: [1; 32],
        salt: [2; 32],
        release,
        secver: 1,
        version: "1".into(),
        product: "bascule".into(),
        arch: "x86_64".into(),
        watchdogs: 0,
    };
    let mut image = Header { trailer_at }.encode().to_vec();
    image.resize(UKI_AT as usize, 0);
    image.extend(kernel);
    image.resize(trailer_at as usize, 0);
    image.extend(trailer.encode());
    image
}

fn facts(release: u64) -> ImageFacts {
    ImageFacts { release, secver: 1, digest: [0; 32] }
}

/// Release 1 proven in A; release 2 in B, on trial with three tries.
fn armed() -> Record {
    let mut record = factory(DISK_ID, facts(1));
    record.slot_mut(A).proven = true;
    *record.slot_mut(B) = sealed(facts(2));
    Record { trial: Some(B), tries: 3, clean: 8, ..record }
}

/// A disk with both releases, and this record.
fn disk(record: Option<&Record>) -> StrictDisk {
    let mut disk = StrictDisk::zeroed(512, SIZE);
    let table = Table::new(Guid([1; 16]), 512, SIZE)
        .and_then(|t| t.append(guid::RECORD, Guid([2; 16]), "record", Some(16 * MIB)))
        .and_then(|t| t.append(guid::SLOT_A, Guid([3; 16]), "a", Some(MIB)))
        .and_then(|t| t.append(guid::SLOT_B, Guid([4; 16]), "b", Some(MIB)))
        .unwrap();
    table.store(&mut disk).unwrap();
    for (at, release) in SLOT_AT.into_iter().zip(1..) {
        disk.put(at, &image(release));
    }
    disk.put(RECORD_AT, &places::encode_identity(DISK_ID, 512));
    if let Some(record) = record {
        let mut region = Region::new(&mut disk, RECORD_AT, 16 * MIB).unwrap();
        let loaded = places::load(&mut region).unwrap();
        places::store(&mut region, &loaded, record).unwrap();
    }
    disk
}

/// The firmware, as far as a boot needs it.
#[derive(Default)]
struct Firmware {
    refuses: Vec<Target>,
    may_not: Vec<Target>,
    no_memory: bool,
    begun: Vec<Target>,
    /// What runs, and what os-init is told.
    runs: Option<(Target, BootVariable)>,
}

impl Firmware {
    fn started(&mut self, target: Target, boot: &Boot<'_, StrictDisk>) -> bool {
        let starts = !self.refuses.contains(&target);
        if starts {
            self.runs = Some((target, boot.variable(0, 0)));
        }
        starts
    }
}

impl Hands<StrictDisk> for Firmware {
    type Memory = Vec<u8>;

    fn memory(&mut self, bytes: usize) -> Option<Vec<u8>> {
        (!self.no_memory).then(|| vec![0; bytes])
    }

    fn say(&mut self, line: Arguments) {
        println!("{line}");
    }

    fn may(&self, target: Target) -> bool {
        !self.may_not.contains(&target)
    }

    fn begins(&mut self, target: Target) {
        self.begun.push(target);
        assert!(self.begun.len() <= 3, "each once: {:?}", self.begun);
    }

    fn start(
        &mut self,
        slot: Slot,
        bytes: Vec<u8>,
        trailer: &Trailer,
        boot: &Boot<'_, StrictDisk>,
    ) -> Result<Runs, Cause> {
        assert_eq!(bytes, kernel(trailer.release), "what is started is what was sealed");
        if self.started(Target::Slot(slot), boot) { Ok(Runs) } else { Err(Cause::Refused) }
    }

    fn recover(&mut self, boot: &Boot<'_, StrictDisk>) -> Option<Runs> {
        self.started(Target::Recovery, boot).then_some(Runs)
    }
}

/// What ran, what os-init was told, and the record that a power cut right then leaves.
struct Booted {
    target: Option<Target>,
    variable: Option<BootVariable>,
    begun: Vec<Target>,
    record: Option<Record>,
}

fn boot(disk: StrictDisk, firmware: Firmware) -> Booted {
    boot_with(disk, firmware, None)
}

fn boot_with(disk: StrictDisk, mut firmware: Firmware, by_hand: Option<Target>) -> Booted {
    let (mut slots, _) = Slots::read(disk);
    let loaded = slots.load_record().and_then(Result::ok);
    let start = Start { nonce: NONCE, rtc_s: 1_000_000 };
    let mut session = Session::new(&mut slots, &mut firmware, loaded.as_ref(), start);
    let ran = match by_hand {
        Some(target) => session.by_hand(target),
        None => session.by_rules(),
    };
    assert_eq!(ran.is_some(), firmware.runs.is_some());
    slots.disk.power_cut(|_| Fate::Lost);
    slots.disk.unreadable.clear();
    let record = slots.load_record().and_then(Result::ok);
    let (target, variable) = firmware.runs.unzip();
    Booted { target, variable, begun: firmware.begun, record: newest(record.as_ref()).cloned() }
}

const SLOT_A: Option<Target> = Some(Target::Slot(A));
const SLOT_B: Option<Target> = Some(Target::Slot(B));

#[test]
fn a_trial_starts_with_its_try_on_the_disk_and_os_init_is_told_which() {
    let booted = boot(disk(Some(&armed())), Firmware::default());
    let (record, variable) = (booted.record.unwrap(), booted.variable.unwrap());
    assert_eq!((booted.target, record.trial, record.tries), (SLOT_B, Some(B), 2));
    assert_eq!((record.nonce, variable.nonce), (NONCE, NONCE));
    assert_eq!((record.generation, variable.record_written), (variable.generation, true));
    assert_eq!((variable.disk_id, variable.sector_size), (DISK_ID, 512));
    assert_eq!((variable.slot.first, variable.slot.sectors), (SLOT_AT[1] / 512, MIB / 512));
    assert_eq!(variable.record.first, RECORD_AT / 512);
}

#[test]
fn where_nothing_can_be_written_the_trial_is_left_out_and_the_confirmed_slot_starts() {
    let mut disk = disk(Some(&armed()));
    let place = |place: usize| (RECORD_AT + STRIDE * (place as u64 + 1)) / 512;
    disk.unwritable = (0..PLACES).map(place).collect();
    let booted = boot(disk, Firmware::default());
    let (record, variable) = (booted.record.unwrap(), booted.variable.unwrap());
    assert_eq!((booted.target, booted.begun.as_slice()), (SLOT_A, &[Target::Slot(A)][..]));
    assert_eq!((record.trial, record.tries, variable.record_written), (Some(B), 3, false));
    assert_eq!(variable.generation, record.generation);
    assert_eq!(variable.reasons, [Reason::NotWritable]);
}

#[test]
fn an_altered_or_missing_kernel_image_is_not_started_and_the_other_slot_is() {
    let in_b = |at: u64| (SLOT_AT[1] + at) / 512;
    let trailer = UKI_AT + 2 * BLOCK;
    for (what, sector) in [
        ("kernel", in_b(UKI_AT)),
        ("its last bytes", in_b(UKI_AT + 4999)),
        ("header", in_b(0)),
        ("trailer", in_b(trailer)),
    ] {
        for unreadable in [false, true] {
            let mut disk = disk(Some(&armed()));
            if unreadable {
                disk.unreadable.insert(sector);
            } else {
                disk.damage(sector, |bytes| bytes[100] ^= 1);
            }
            let booted = boot(disk, Firmware::default());
            let record = booted.record.unwrap();
            assert_eq!(booted.target, SLOT_A, "{what}");
            assert_eq!((record.trial, record.slot(B).fault), (None, Fault::Load), "{what}");
            assert_eq!(record.slot(B).cause, Cause::Unreadable, "{what}");
        }
    }
}

#[test]
fn what_the_firmware_refuses_is_passed_in_the_same_boot_until_nothing_is_left() {
    let refuse = |refuses: &[Target]| {
        boot(disk(Some(&armed())), Firmware { refuses: refuses.to_vec(), ..Firmware::default() })
    };
    let booted = refuse(&[Target::Slot(B)]);
    assert_eq!(booted.target, SLOT_A);
    let record = booted.record.unwrap();
    assert_eq!((record.slot(B).fault, record.slot(B).cause), (Fault::Load, Cause::Refused));
    let both = [Target::Slot(A), Target::Slot(B)];
    assert_eq!(refuse(&both).target, Some(Target::Recovery));
    let all = [both[0], both[1], Target::Recovery];
    let nothing = refuse(&all);
    assert_eq!((nothing.target, nothing.begun.len()), (None, 3), "each once");
}

#[test]
fn what_ended_in_an_error_of_ours_is_left_out() {
    let may_not = vec![Target::Slot(B)];
    let booted = boot(disk(Some(&armed())), Firmware { may_not, ..Firmware::default() });
    assert_eq!((booted.target, booted.begun.as_slice()), (SLOT_A, &[Target::Slot(A)][..]));
    let may_not = vec![Target::Slot(A), Target::Slot(B), Target::Recovery];
    let booted = boot(disk(Some(&armed())), Firmware { may_not, ..Firmware::default() });
    assert_eq!((booted.target, booted.begun.len()), (None, 0));
    let booted = boot(disk(Some(&armed())), Firmware { no_memory: true, ..Firmware::default() });
    assert_eq!(booted.target, Some(Target::Recovery));
}

#[test]
fn without_a_record_the_trailers_decide() {
    let booted = boot(disk(None), Firmware::default());
    let (record, variable) = (booted.record.unwrap(), booted.variable.unwrap());
    assert_eq!((booted.target, record.default, record.tries), (SLOT_B, A, 0));
    assert_eq!((record.slot(A).release, record.slot(B).release), (1, 2));
    assert_eq!(variable.reasons, [Reason::Rebuilt]);
}

#[test]
fn a_start_by_hand_takes_no_try() {
    for (target, slot) in [(Target::Slot(B), SLOT_B), (Target::Recovery, Some(Target::Recovery))] {
        let booted = boot_with(disk(Some(&armed())), Firmware::default(), Some(target));
        let record = booted.record.unwrap();
        assert_eq!((booted.target, record.trial, record.tries), (slot, Some(B), 3));
        assert_eq!(record.nonce, NONCE);
    }
    let refuses = vec![Target::Slot(B)];
    let firmware = Firmware { refuses, ..Firmware::default() };
    let booted = boot_with(disk(Some(&armed())), firmware, Some(Target::Slot(B)));
    assert_eq!((booted.target, booted.record.unwrap().slot(B).fault), (None, Fault::None));
}

#[test]
fn with_a_damaged_primary_table_the_backup_is_used_and_without_both_there_is_recovery() {
    let mut disk = disk(Some(&armed()));
    disk.damage(1, |bytes| bytes[60] ^= 1);
    assert_eq!(boot(disk.clone(), Firmware::default()).target, SLOT_B);
    disk.damage(SIZE / 512 - 1, |bytes| bytes[60] ^= 1);
    assert_eq!(boot(disk.clone(), Firmware::default()).target, Some(Target::Recovery));
    let mut untouched = disk;
    // A foreign table: not one write.
    untouched.allow_writes(Some(Vec::new()));
    assert_eq!(boot(untouched, Firmware::default()).target, Some(Target::Recovery));
}
