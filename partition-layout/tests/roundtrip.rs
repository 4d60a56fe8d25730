//! What is written can be read, and nothing else is believed.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use partition_layout::boot_state::{self, Choice, Event, ImageFacts, LoaderPlan, Start};
use partition_layout::boot_variable::{BootVariable, Extent};
use partition_layout::record::{Cause, Record, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::{Header, Trailer};
use partition_layout::verity::{TreeBuilder, VerityTable, tree_size};
use partition_layout::{frames, places};
use proptest::prelude::*;

fn facts(release: u64) -> ImageFacts {
    ImageFacts { release, secver: 1, digest: [u8::try_from(release).unwrap_or(9); 32] }
}

const START: Start = Start { nonce: [7; 16], rtc_s: 1000 };

fn booted(record: &Record) -> (Slot, Record) {
    match LoaderPlan::new(record, START).choose() {
        Choice::Start { slot, record, .. } => (slot, record),
        other => panic!("{other:?}"),
    }
}

fn apply(record: &Record, running: Slot, event: Event) -> Record {
    boot_state::step(record, running, event).unwrap().record
}

#[test]
fn an_update_is_tried_confirmed_and_can_be_rolled_back() {
    let factory = boot_state::factory([1; 16], facts(1));
    let (slot, record) = booted(&factory);
    assert_eq!(slot, Slot::A);
    let record = apply(&record, slot, Event::Confirm);
    let record = apply(&record, slot, Event::Disarm);
    let record = apply(&record, slot, Event::Seal(facts(2)));
    let record = apply(&record, slot, Event::Arm);
    let (slot, record) = booted(&record);
    assert_eq!((slot, record.tries), (Slot::B, 2));
    let record = apply(&record, slot, Event::Confirm);
    assert_eq!((record.default, record.trial), (Slot::B, None));
    let record = apply(&record, slot, Event::Rollback);
    let (slot, record) = booted(&record);
    assert_eq!(slot, Slot::A);
    let record = apply(&record, slot, Event::Confirm);
    assert_eq!(record.quarantined(&[2; 32]).map(|q| q.cause), Some(Cause::Operator));
    // Forward again by the same command.
    let record = apply(&record, slot, Event::Rollback);
    assert_eq!(booted(&record).0, Slot::B);
}

#[test]
fn a_trial_that_never_reports_goes_back_and_is_counted_once_the_old_slot_is_well() {
    let factory = boot_state::factory([1; 16], facts(1));
    let (slot, mut record) = booted(&factory);
    for event in [Event::Confirm, Event::Disarm, Event::Seal(facts(2)), Event::Arm] {
        record = apply(&record, slot, event);
    }
    for _ in 0..3 {
        let (slot, next) = booted(&record);
        assert_eq!(slot, Slot::B);
        record = next;
    }
    let (slot, record) = booted(&record);
    assert_eq!(slot, Slot::A);
    assert_eq!(record.quarantined(&[2; 32]), None);
    let record = apply(&record, slot, Event::Confirm);
    assert_eq!(record.quarantined(&[2; 32]).map(|q| q.cause), Some(Cause::TriesSpent));
}

proptest! {
    #[test]
    fn records_keep_what_they_do_not_know(bytes in prop::collection::vec(any::<u8>(), 200), generation in 0..u64::MAX) {
        let mut record = boot_state::factory([3; 16], facts(5));
        record.generation = generation;
        record.raw[312..].copy_from_slice(&bytes);
        let encoded = record.encode();
        let decoded = Record::decode(&encoded).unwrap();
        prop_assert_eq!(&decoded.encode()[..], &encoded[..]);
        prop_assert_eq!(&encoded[312..], &bytes[..]);
        let mut torn = encoded;
        torn[(generation % 512) as usize] ^= 1;
        prop_assert!(Record::decode(&torn).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..8192)) {
        let _ = Record::decode(&bytes);
        let _ = Header::decode(&bytes);
        let _ = Trailer::decode(&bytes);
        let _ = BootVariable::decode(&bytes);
        let _ = places::decode_identity(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = VerityTable::decode(&text);
        let _ = frames::base64_decode(&text);
        let _ = frames::FrameTable::decode(10, &text, 10, 1 << 20);
    }

    #[test]
    fn trailers_and_headers_come_back(release in any::<u64>(), secver in any::<u32>(), root in any::<[u8; 32]>()) {
        let trailer = Trailer {
            data_size: 8192, hash_size: 8192, uki_at: 16384, uki_size: 5000, uki_sha256: root,
            root_hash: root, salt: [1; 32], release, secver, version: "1.0".into(),
            product: "bascule".into(), arch: "x86_64".into(), watchdogs: 3,
        };
        prop_assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        let header = Header { trailer_at: (release % 1_000_000 + 1) * 4096 };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn frame_tables_come_back(sizes in prop::collection::vec(1_u32..0x00FF_FFFF, 1..50)) {
        let table = frames::FrameTable { head: 60, slot: sizes.clone(), tail: 20 };
        let size = sizes.len() as u64 * frames::FRAME_SIZE;
        prop_assert_eq!(frames::FrameTable::decode(60, &table.encode_slot(), 20, size), Ok(table));
        prop_assert!(frames::FrameTable::decode(60, "", 20, size).is_err());
    }

    #[test]
    fn base64_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(frames::base64_decode(&frames::base64_encode(&bytes)), Some(bytes));
    }

    #[test]
    fn the_tree_has_the_size_that_was_planned(blocks in 1_usize..400) {
        let mut tree = TreeBuilder::new([0; 32]);
        tree.update(&vec![0; blocks * 4096]);
        prop_assert_eq!(tree.finish().bytes.len() as u64, tree_size(blocks as u64));
    }
}

#[test]
fn the_boot_variable_comes_back() {
    let variable = BootVariable {
        loader: "0.1.0".into(),
        disk_id: [1; 16],
        nonce: [2; 16],
        booted: Target::Slot(Slot::B),
        slot: Extent { first: 2048, sectors: 4096 },
        sector_size: 512,
        generation: 9,
        record_written: true,
        record: Extent { first: 34, sectors: 100 },
        watchdogs: 1,
        reasons: vec![boot_state::Reason::LoadFailed(Slot::A, Cause::Refused)],
        buffer: 0x1000,
    };
    assert_eq!(BootVariable::decode(&variable.encode()), Some(variable));
}
