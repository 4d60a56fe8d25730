//! What is written can be read, and nothing else is believed.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use partition_layout::boot_state::{ImageFacts, Reason, factory};
use partition_layout::boot_variable::{BootVariable, Extent};
use partition_layout::bytes::{crc32c, put};
use partition_layout::guid::Guid;
use partition_layout::labels::{self, ImageLabels};
use partition_layout::record::{
    Cause, Content, Fault, LastStart, Quarantined, Record, SlotRecord, Stage, Target,
};
use partition_layout::slot::Slot;
use partition_layout::slot_image::{self, Header, Trailer};
use partition_layout::tlv::{self, CRITICAL};
use partition_layout::verity::{TreeBuilder, VerityTable, tree_size, unhex};
use partition_layout::{frames, places};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn any_slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::A), Just(Slot::B)]
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![any_slot().prop_map(Target::Slot), Just(Target::Recovery)]
}

fn any_cause() -> impl Strategy<Value = Cause> {
    prop::sample::select(vec![
        Cause::Unknown,
        Cause::TriesSpent,
        Cause::Unreadable,
        Cause::Refused,
        Cause::Returned,
        Cause::Gate,
        Cause::Verity,
        Cause::Hang,
        Cause::Overdue,
        Cause::Operator,
    ])
}

fn any_slot_record() -> impl Strategy<Value = SlotRecord> {
    let content = prop::sample::select(vec![Content::Empty, Content::Writing, Content::Sealed]);
    let fault = prop::sample::select(vec![Fault::None, Fault::Spent, Fault::Load, Fault::Evidence]);
    (content, fault, any_cause(), any::<(bool, u32, u64, [u8; 32], bool)>()).prop_map(
        |(content, fault, cause, (proven, secver, release, digest, counted))| SlotRecord {
            content,
            proven,
            fault,
            cause,
            secver,
            release,
            digest,
            counted,
        },
    )
}

fn any_quarantined() -> impl Strategy<Value = Option<Quarantined>> {
    let entry = (any::<[u8; 16]>(), any_cause(), any::<u8>(), any::<u32>())
        .prop_filter("zeros are no digest", |(prefix, ..)| *prefix != [0; 16])
        .prop_map(|(prefix, cause, count, generation)| Quarantined {
            prefix,
            cause,
            count,
            generation,
        });
    prop::option::of(entry)
}

fn any_last_start() -> impl Strategy<Value = LastStart> {
    let stage = prop::sample::select(vec![
        Stage::Loader,
        Stage::Init,
        Stage::Gate,
        Stage::Confirmed,
        Stage::Clean,
    ]);
    (prop::option::of(any_target()), stage, any::<(u8, u32, u64)>()).prop_map(
        |(target, stage, (overdue, watchdog, rtc_s))| LastStart {
            target,
            stage,
            overdue,
            watchdog,
            rtc_s,
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let numbers = any::<([u8; 16], [u8; 16], u8, u8, u8, bool, u32)>();
    let slots = [any_slot_record(), any_slot_record()];
    let quarantine = std::array::from_fn(|_| any_quarantined());
    let choice = (0..u64::MAX, any_slot(), prop::option::of(any_slot()));
    (numbers, slots, quarantine, choice, any_last_start()).prop_map(
        |(numbers, slots, quarantine, (generation, default, trial), last)| {
            let (disk_id, nonce, tries, clean, asks, confirmed_this_boot, floor) = numbers;
            Record {
                generation,
                disk_id,
                nonce,
                default,
                trial,
                tries,
                clean,
                asks,
                confirmed_this_boot,
                last,
                floor,
                slots,
                quarantine,
                raw: [0; 512],
            }
        },
    )
}

fn sample_trailer() -> Trailer {
    Trailer {
        data_size: 8192,
        hash_size: 8192,
        uki_at: 16384,
        uki_size: 5000,
        uki_sha256: [4; 32],
        root_hash: [5; 32],
        salt: [1; 32],
        release: 7,
        secver: 1,
        version: "1.0".into(),
        product: "bascule".into(),
        arch: "x86_64".into(),
        watchdogs: 3,
    }
}

/// Appends an entry to the list of a header or trailer, with the checksum put right.
fn with_entry(bytes: &[u8], list_at: usize, kind: u16) -> Vec<u8> {
    let used: usize = tlv::parse(&bytes[list_at..]).unwrap().iter().map(|(_, v)| v.len() + 4).sum();
    let mut entry = Vec::new();
    tlv::push(&mut entry, kind, b"later");
    let mut out = bytes.to_vec();
    put(&mut out, list_at + used, &entry);
    put(&mut out, 12, &[0; 4]);
    let crc = crc32c(&[&out]);
    put(&mut out, 12, &crc.to_le_bytes());
    out
}

#[test]
fn entries_of_later_versions_are_passed_over_unless_critical() {
    let trailer = sample_trailer().encode();
    assert_eq!(Trailer::decode(&with_entry(&trailer, 16, 900)), Ok(sample_trailer()));
    let critical = with_entry(&trailer, 16, 900 | CRITICAL);
    assert_eq!(Trailer::decode(&critical), Err(slot_image::Invalid::Unknown(900 | CRITICAL)));
    let header = Header { trailer_at: 32768 };
    assert_eq!(Header::decode(&with_entry(&header.encode(), 24, 900)), Ok(header.clone()));
    assert!(Header::decode(&with_entry(&header.encode(), 24, 900 | CRITICAL)).is_err());
    let variable = sample_variable();
    let mut longer = variable.encode();
    tlv::push(&mut longer, 900, b"later");
    assert_eq!(BootVariable::decode(&longer), Some(variable));
}

#[test]
fn trailers_that_contradict_themselves_are_refused() {
    let refused = |change: fn(&mut Trailer)| {
        let mut trailer = sample_trailer();
        change(&mut trailer);
        Trailer::decode(&trailer.encode()) == Err(slot_image::Invalid::Value)
    };
    assert!(refused(|t| t.data_size = 0));
    assert!(refused(|t| t.data_size = 8193));
    assert!(refused(|t| t.uki_at = 8192), "the UKI lies in the tree");
    assert!(refused(|t| t.uki_size = 0));
    assert!(refused(|t| t.uki_size = slot_image::UKI_MAX + 1));
    assert!(refused(|t| t.hash_size = u64::MAX - 4095));
    assert!(refused(|t| t.version = "1\n0".into()));
    assert!(!sample_trailer().fits(20480), "the trailer lies in the UKI");
    assert!(sample_trailer().fits(24576));
    assert_eq!(Trailer::decode(&[0; 4096]), Err(slot_image::Invalid::Absent));
}

/// The same bytes with the checksum put right.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    put(&mut out, 12, &[0; 4]);
    let crc = crc32c(&[&out]);
    put(&mut out, 12, &crc.to_le_bytes());
    out
}

#[test]
fn headers_and_trailers_of_later_versions_or_that_lead_nowhere_are_refused() {
    let mut header = Header { trailer_at: 32768 }.encode();
    assert_eq!(Header::decode(&resealed(&header)), Ok(Header { trailer_at: 32768 }));
    header[8] = 2;
    assert_eq!(Header::decode(&resealed(&header)), Err(slot_image::Invalid::Unknown(2)));
    let mut trailer = sample_trailer().encode();
    trailer[9] = 1;
    assert_eq!(Trailer::decode(&resealed(&trailer)), Err(slot_image::Invalid::Unknown(0x101)));
    for trailer_at in [0, 4095, 32769] {
        let header = Header { trailer_at }.encode();
        assert_eq!(Header::decode(&header), Err(slot_image::Invalid::Value), "{trailer_at}");
    }
    for (size, aligned) in [(0, Some(0)), (1, Some(4096)), (4096, Some(4096)), (u64::MAX, None)] {
        assert_eq!(slot_image::align(size), aligned);
    }
}

#[test]
fn no_byte_of_header_or_trailer_may_change() {
    let (header, trailer) = (Header { trailer_at: 32768 }.encode(), sample_trailer().encode());
    let altered = |bytes: &[u8], at: usize| {
        let mut altered = bytes.to_vec();
        altered[at] ^= 1;
        altered
    };
    for at in 0..header.len() {
        assert!(Header::decode(&altered(&header, at)).is_err(), "byte {at}");
    }
    for at in 0..trailer.len() {
        assert!(Trailer::decode(&altered(&trailer, at)).is_err(), "byte {at}");
    }
    // Half written: the rest is zeros.
    let half = [&trailer[..128], &[0; 4096 - 128]].concat();
    assert_eq!(Trailer::decode(&half), Err(slot_image::Invalid::Checksum));
}

fn sample_labels() -> ImageLabels {
    ImageLabels {
        product: "bascule".into(),
        kind: labels::KIND_OS.into(),
        arch: "x86_64".into(),
        release: u64::MAX,
        secver: 3,
        min_from: 2,
        requires: vec!["two-disks".into()],
        version: "1.2".into(),
        slot_size: 1 << 20,
        slot_sha256: [1; 32],
        root_hash: [2; 32],
    }
}

#[test]
fn each_label_is_needed_and_checked_and_strangers_are_passed_over() {
    let whole = sample_labels().encode();
    assert_eq!(whole.len(), 12);
    assert_eq!(sample_labels().unmet_requirement(), Some("two-disks"), "refused by name");
    let mut more = whole.clone();
    more.insert("org.bascule.later".into(), "x".into());
    more.insert("maintainer".into(), "x".into());
    assert_eq!(ImageLabels::decode(&more), Ok(sample_labels()));
    for key in whole.keys() {
        let mut less = whole.clone();
        less.remove(key);
        let why = ImageLabels::decode(&less).unwrap_err().to_string();
        assert!(why.contains(key.as_str()) && why.contains("missing"), "{why}");
        for bad in ["", "\u{1b}[2J", "-1", "99999999999999999999999", "[1]"] {
            let mut altered: BTreeMap<String, String> = whole.clone();
            altered.insert(key.clone(), bad.into());
            let free_text = ["product", "kind", "arch", "version"].iter().any(|k| key.ends_with(k));
            let plain = !bad.is_empty() && !bad.contains('\u{1b}');
            assert_eq!(ImageLabels::decode(&altered).is_ok(), free_text && plain, "{key}={bad:?}");
        }
    }
}

fn sample_variable() -> BootVariable {
    BootVariable {
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
        reasons: vec![Reason::LoadFailed(Slot::A, Cause::Refused)],
        buffer: 0x1000,
        damaged: 2,
    }
}

fn any_reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        any_slot().prop_map(Reason::TrialSpent),
        (any_slot(), any_cause()).prop_map(|(slot, cause)| Reason::LoadFailed(slot, cause)),
        Just(Reason::NotWritable),
        Just(Reason::Rebuilt),
        Just(Reason::ByHand),
        any_slot().prop_map(Reason::UnprovenEnded),
        any_slot().prop_map(Reason::Overdue),
    ]
}

#[test]
fn a_boot_variable_without_a_target_is_refused_and_strange_reasons_are_passed_over() {
    let with = |kind: u16, value: &[u8]| {
        let bytes = sample_variable().encode();
        let entries = tlv::parse(&bytes[12..]).unwrap();
        let mut out = bytes[..12].to_vec();
        for (known, old) in entries {
            tlv::push(&mut out, known, if known == kind { value } else { old });
        }
        BootVariable::decode(&out)
    };
    for booted in [&[0][..], &[4], &[], &[1, 1]] {
        assert_eq!(with(4, booted), None, "{booted:?}");
    }
    let reasons = [[0, 1, 0], [8, 1, 0], [1, 0, 0], [2, 3, 3], [6, 2, 0], [3, 0, 0]].concat();
    let read = with(11, &reasons).unwrap().reasons;
    assert_eq!(read, [Reason::Overdue(Slot::B), Reason::NotWritable]);
    assert!(with(11, &[6, 2]).unwrap().reasons.is_empty());
}

#[test]
fn entries_too_long_for_a_list_are_left_out_and_cut_lists_are_refused() {
    let mut out = Vec::new();
    tlv::push(&mut out, 1, &vec![0; 0x1_0000]);
    assert!(out.is_empty());
    tlv::push(&mut out, 1, &vec![7; 0xFFFF]);
    assert_eq!(tlv::parse(&out).unwrap(), [(1, &vec![7; 0xFFFF][..])]);
    assert!(tlv::parse(&out[..out.len() - 1]).is_err());
    assert!(tlv::parse(&[1, 0, 0, 0, 1]).is_err(), "half a head");
    assert_eq!(tlv::parse(&[1, 0, 0, 0, 0, 0]), Ok(vec![(1, &[][..])]));
}

#[test]
fn frame_tables_that_are_no_table_are_refused() {
    const FRAME: u64 = frames::FRAME_SIZE;
    let decode = |head, slot: &str, tail, size| frames::FrameTable::decode(head, slot, tail, size);
    // One frame of 0x030201 bytes.
    let one = frames::base64_encode(&[1, 2, 3]);
    let table = decode(60, &one, 20, 4096).unwrap();
    assert_eq!(
        (table.slot.as_slice(), table.offset(1)),
        (&[0x03_02_01][..], Some(60 + 0x03_02_01))
    );
    assert_eq!((table.offset(0), table.offset(2)), (Some(60), None));
    assert!(decode(4096, &one, 1, FRAME).is_ok());
    let value = Err(frames::Invalid::Value);
    for (head, tail, size) in
        [(0, 20, 4096), (4097, 20, 4096), (60, 0, 4096), (60, 4097, 4096), (60, 20, FRAME + 1)]
    {
        assert_eq!(decode(head, &one, tail, size), value, "{head}, {tail}, {size}");
    }
    assert_eq!(decode(60, "", 20, 0), value, "no frame");
    assert_eq!(decode(60, &frames::base64_encode(&[0; 3]), 20, 4096), value, "an empty frame");
    let most = frames::base64_encode(&[1; 3 * frames::FRAMES_MAX]);
    assert!(decode(60, &most, 20, frames::FRAMES_MAX as u64 * FRAME).is_ok());
    let more = frames::base64_encode(&[1; 3 * (frames::FRAMES_MAX + 1)]);
    assert_eq!(decode(60, &more, 20, (frames::FRAMES_MAX as u64 + 1) * FRAME), value);
    for text in ["AQID=", "A", "AQI=", "AQ==", "A===", "AB==", "====", "A*ID", "AQID\n"] {
        assert_eq!(decode(60, text, 20, 4096), Err(frames::Invalid::Encoding), "{text:?}");
    }
    assert_eq!(frames::base64_decode("AQI="), Some(vec![1, 2]));
    assert_eq!(frames::base64_decode("AQ=="), Some(vec![1]));
    assert_eq!(frames::tar_header(1 << 33), None);
    assert!(frames::tar_header((1 << 33) - 1).is_some());
}

proptest! {
    #[test]
    fn records_keep_what_they_do_not_know(bytes in prop::collection::vec(any::<u8>(), 200), generation in 0..u64::MAX) {
        let mut record = factory([3; 16], ImageFacts { release: 5, secver: 1, digest: [5; 32] });
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
    fn boot_variables_come_back(
        booted in any_target(), reasons in prop::collection::vec(any_reason(), 0..9),
        numbers in any::<(u64, u64, u32, u64, bool, u64)>(), ids in any::<([u8; 16], [u8; 16])>(),
    ) {
        let variable = BootVariable {
            booted,
            reasons,
            disk_id: ids.0,
            nonce: ids.1,
            slot: Extent { first: numbers.0, sectors: numbers.1 },
            sector_size: numbers.2,
            generation: numbers.3,
            record_written: numbers.4,
            buffer: numbers.5,
            ..sample_variable()
        };
        let bytes = variable.encode();
        for end in 0..bytes.len() {
            let cut = BootVariable::decode(&bytes[..end]);
            // Only what os-init can do without may be missing.
            prop_assert!(cut.is_none_or(|cut| cut.nonce == variable.nonce && cut.slot == variable.slot));
        }
        prop_assert_eq!(BootVariable::decode(&bytes), Some(variable));
    }

    #[test]
    fn records_come_back(record in any_record()) {
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&bytes), Ok(Record { raw: bytes, ..record }));
    }

    #[test]
    fn verity_tables_come_back_in_one_length(
        data_blocks in 1..u64::MAX, hash_start in any::<u64>(), root in any::<[u8; 32]>(), salt in any::<[u8; 32]>(),
    ) {
        let table = VerityTable { data_blocks, hash_start, root, salt };
        let text = table.encode();
        prop_assert_eq!(text.len(), VerityTable { data_blocks: 1, ..table.clone() }.encode().len());
        prop_assert_eq!(VerityTable::decode(&format!("{text} ")), None);
        prop_assert_eq!(VerityTable::decode(&text.replace("salt", "Salt")), None);
        prop_assert_eq!(VerityTable::decode(&text), Some(table));
    }

    #[test]
    fn labels_come_back(
        release in any::<u64>(), secver in any::<u32>(), requires in prop::collection::vec("[ -~]{0,20}", 0..5),
    ) {
        let labels = ImageLabels { release, secver, requires, ..sample_labels() };
        prop_assert_eq!(ImageLabels::decode(&labels.encode()), Ok(labels));
    }

    #[test]
    fn guids_come_back(bytes in any::<[u8; 16]>()) {
        prop_assert_eq!(Guid::parse(&Guid(bytes).to_string()), Some(Guid(bytes)));
    }
}

#[test]
fn the_tree_has_the_size_that_was_planned() {
    for blocks in [0, 1, 2, 127, 128, 129, 300, 128 * 128 + 1] {
        let mut tree = TreeBuilder::new([0; 32]);
        let block = [0; 4096];
        for _ in 0..blocks {
            tree.update(&block);
        }
        assert_eq!(tree.finish().bytes.len() as u64, tree_size(blocks), "{blocks} blocks");
    }
}

/// Puts a right checksum, CRC-32C at byte 12, over bytes that a test has changed.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    put(&mut bytes, 12, &[0; 4]);
    let sum = crc32c(&[&bytes]);
    put(&mut bytes, 12, &sum.to_le_bytes());
    bytes
}

#[test]
fn each_field_of_an_identity_has_to_be_right() {
    let good = places::encode_identity([7; 16], 512).to_vec();
    assert_eq!(places::decode_identity(&summed(good.clone())), Some([7; 16]));
    // Magic, version, number of places, stride.
    for at in [0, 8, 36, 40] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(places::decode_identity(&summed(bad)), None, "{at}");
    }
    let mut unsummed = good;
    unsummed[12] ^= 1;
    assert_eq!(places::decode_identity(&unsummed), None);
}

#[test]
fn a_record_of_another_version_or_size_is_not_read() {
    let good = factory([1; 16], ImageFacts { release: 1, secver: 1, digest: [3; 32] }).encode();
    assert!(Record::decode(&summed(good.to_vec())).is_ok());
    for at in [8, 10] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        let decoded = Record::decode(&summed(bad));
        assert_eq!(decoded, Err(partition_layout::record::Invalid::Version), "{at}");
    }
}

/// Bits beside those that this version knows are a later one's, and stay.
#[test]
fn bits_of_later_versions_stay() {
    let mut bytes =
        factory([1; 16], ImageFacts { release: 1, secver: 1, digest: [3; 32] }).encode().to_vec();
    bytes[61] = 0b1010_1010;
    let mut record = Record::decode(&summed(bytes)).unwrap();
    for confirmed in [true, false, true] {
        record.confirmed_this_boot = confirmed;
        assert_eq!(record.encode()[61], 0b1010_1010 | u8::from(confirmed));
    }
}

#[test]
fn a_tree_counts_its_blocks() {
    let mut tree = TreeBuilder::new([0; 32]);
    assert_eq!(tree.data_blocks(), 0);
    tree.update(&[1; 3 * 4096]);
    assert_eq!(tree.data_blocks(), 3);
    tree.update(&[1; 4096]);
    assert_eq!(tree.data_blocks(), 4);
}

#[test]
fn a_verity_line_is_read_as_it_is_written_or_not_at_all() {
    let table = VerityTable { data_blocks: 1, hash_start: 2, root: [0xAB; 32], salt: [0xCD; 32] };
    let text = table.encode();
    assert_eq!(VerityTable::decode(&text), Some(table.clone()));
    let none = VerityTable { data_blocks: 0, ..table.clone() }.encode();
    assert_eq!(VerityTable::decode(&none), None, "no data");
    let more = text.replace('\n', " more=1\n");
    assert_eq!(VerityTable::decode(&more), None);
    // What the standard library would read as numbers.
    for (number, other) in [("00000000000000000001", "+0000000000000000001"), ("ab", "+b")] {
        assert_eq!(VerityTable::decode(&text.replacen(number, other, 1)), None, "{other}");
    }
    let line = "1 /dev/x /dev/x 4096 4096 1 2 sha256 ";
    let told = table.target("/dev/x");
    assert_eq!(told, format!("{line}{} {}", "ab".repeat(32), "cd".repeat(32)));
}

#[test]
fn hexadecimal_is_two_digits_a_byte() {
    assert_eq!(unhex("00fF"), Some([0, 0xFF]));
    for bad in ["", "00", "00ff0", "00ff00", "00f", "0 ff", "+0ff", "0xff", "00fg"] {
        assert_eq!(unhex::<2>(bad), None, "{bad}");
    }
}
