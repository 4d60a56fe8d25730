//! Partition tables: one copy is enough, nothing hostile is believed, and growing may be cut.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use partition_layout::disk::Disk as _;
use partition_layout::gpt::{self, Copy, Entry, Error, Invalid, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::layout::MIB;
use proptest::prelude::*;
use strict_disk::{Fate, StrictDisk};

const SIZE: u64 = 64 * MIB;

fn table(sector_size: u32) -> Table {
    Table::new(Guid([1; 16]), sector_size, SIZE)
        .and_then(|t| t.append(guid::RECORD, Guid([2; 16]), "bascule-record", Some(16 * MIB)))
        .and_then(|t| t.append(guid::SLOT_A, Guid([3; 16]), "bascule-slot-a", Some(8 * MIB)))
        .and_then(|t| t.append(guid::STATE, Guid([4; 16]), "bascule-state", None))
        .unwrap()
}

fn disk(sector_size: u32) -> StrictDisk {
    let mut disk = StrictDisk::zeroed(sector_size, SIZE);
    disk.write(0, &table(sector_size).protective_mbr()).unwrap();
    table(sector_size).store(&mut disk).unwrap();
    disk
}

fn last(disk: &StrictDisk) -> u64 {
    disk.size() / u64::from(disk.sector_size()) - 1
}

#[test]
fn either_copy_is_enough_and_says_the_same() {
    for sector_size in [512, 4096] {
        let whole = disk(sector_size);
        let mut both = whole.clone();
        assert_eq!(gpt::read(&mut both), Ok((table(sector_size), Copy::Primary)));
        for at in [0, 40, 60, 90] {
            let mut primary = whole.clone();
            primary.damage(1, |bytes| bytes[at] ^= 1);
            assert_eq!(gpt::read(&mut primary), Ok((table(sector_size), Copy::Backup)));
            let end = last(&primary);
            primary.damage(end, |bytes| bytes[at] ^= 1);
            assert!(matches!(gpt::read(&mut primary), Err(Error::Invalid(..))));
        }
        let mut entries = whole.clone();
        entries.damage(2, |bytes| bytes[0] ^= 1);
        assert_eq!(gpt::read(&mut entries), Ok((table(sector_size), Copy::Backup)));
        let mut unreadable = whole.clone();
        unreadable.unreadable.insert(1);
        assert_eq!(gpt::read(&mut unreadable), Ok((table(sector_size), Copy::Backup)));
        let mut blank = StrictDisk::zeroed(sector_size, SIZE);
        let absent = Error::Invalid(Invalid::Absent, Invalid::Absent);
        assert_eq!(gpt::read(&mut blank), Err(absent));
    }
}

#[test]
fn partitions_are_aligned_and_found_by_type_alone() {
    for sector_size in [512, 4096] {
        let table = table(sector_size);
        for (_, entry) in &table.entries {
            let unit = u64::from(sector_size);
            assert!((entry.first * unit).is_multiple_of(MIB));
            assert!(((entry.last + 1) * unit).is_multiple_of(MIB));
        }
        assert_eq!(table.find(guid::SLOT_A).unwrap().id, Guid([3; 16]));
        assert_eq!(table.find(guid::SLOT_B), None);
        // Two of one type: nobody says which is ours.
        let mut twice = table.clone();
        let copy = Entry { id: Guid([9; 16]), ..twice.entries[1].1.clone() };
        twice.entries.push((7, copy));
        assert_eq!(twice.find(guid::SLOT_A), None);
    }
}

/// Stores a table that differs from the good one and reads it back.
fn believed(change: impl FnOnce(&mut Table)) -> bool {
    let mut disk = StrictDisk::zeroed(512, SIZE);
    let mut hostile = table(512);
    change(&mut hostile);
    for write in hostile.writes() {
        // One that does not even fit is not written.
        if write.at + write.data.len() as u64 <= SIZE {
            disk.write(write.at, &write.data).unwrap();
        }
    }
    gpt::read(&mut disk).is_ok()
}

#[test]
fn tables_with_right_checksums_and_wrong_bounds_are_not_believed() {
    assert!(believed(|_| {}));
    assert!(!believed(|t| t.entries[0].1.first = 5), "a partition over the table");
    assert!(!believed(|t| t.entries[2].1.last = SIZE / 512 - 1), "a partition over the backup");
    assert!(!believed(|t| t.entries[2].1.last = u64::MAX), "outside the disk");
    assert!(!believed(|t| t.entries[1].1.last = t.entries[1].1.first - 1), "ends before it starts");
    assert!(!believed(|t| t.entries[0].1.last = t.entries[1].1.first), "overlap");
    assert!(!believed(|t| t.first_usable = 2), "usable over the entries");
    assert!(!believed(|t| t.last_usable = SIZE / 512 - 2), "usable over the backup");
    assert!(!believed(|t| t.sectors += 8), "made for a larger disk");
    assert!(!believed(|t| t.sectors = u64::MAX / 512), "made for no disk");
}

#[test]
fn growing_may_be_cut_at_any_point() {
    let larger = 2 * SIZE;
    let mut small = disk(512);
    let mut grown_disk = StrictDisk::zeroed(512, larger);
    // The same content on a larger disk.
    for write in table(512).writes() {
        grown_disk.write(write.at, &write.data).unwrap();
    }
    grown_disk.flush().unwrap();
    assert_eq!(gpt::read(&mut small), gpt::read(&mut grown_disk));
    let grown = table(512).grown(larger, guid::STATE).unwrap();
    for operations in 0..=4 {
        for fate in Fate::ALL {
            for odd_only in [false, true] {
                let mut disk = grown_disk.clone();
                disk.operations_left = Some(operations);
                let done = grown.store(&mut disk);
                assert_eq!(done.is_ok(), operations == 4);
                // All sectors meet the fate, or every second one.
                disk.power_cut(
                    |sector| {
                        if odd_only && sector % 2 == 0 { Fate::Kept } else { fate }
                    },
                );
                disk.power_on();
                let (found, _) = gpt::read(&mut disk).unwrap();
                let old_or_new = found == table(512) || found == grown;
                assert!(old_or_new, "cut after {operations}, {fate:?}");
                // The next try goes on from there.
                if let Some(again) = found.grown(larger, guid::STATE) {
                    again.store(&mut disk).unwrap();
                }
                assert_eq!(gpt::read(&mut disk).map(|(table, _)| table), Ok(grown.clone()));
            }
        }
    }
}

/// The backup is the only whole copy then: it must not be written, not even with the same bytes.
#[test]
fn mending_may_be_cut_at_any_point() {
    for sector_size in [512, 4096] {
        let mut damaged = disk(sector_size);
        damaged.damage(1, |bytes| bytes[60] ^= 1);
        for operations in 0..=2 {
            for fate in Fate::ALL {
                let mut disk = damaged.clone();
                disk.operations_left = Some(operations);
                let done = table(sector_size).mend(&mut disk);
                assert_eq!(done.is_ok(), operations == 2);
                disk.power_cut(|_| fate);
                disk.power_on();
                let (found, copy) = gpt::read(&mut disk).unwrap();
                assert_eq!(found, table(sector_size), "cut after {operations}, {fate:?}");
                assert!(done.is_err() || copy == Copy::Primary);
            }
        }
    }
}

#[test]
fn a_table_is_fitted_to_a_disk_that_still_holds_its_partitions() {
    let table = table(512);
    assert_eq!(table.fitted(SIZE), Some(table.clone()));
    let larger = table.fitted(2 * SIZE).unwrap();
    assert_eq!((larger.sectors, &larger.entries), (2 * SIZE / 512, &table.entries));
    let end = (table.entries[2].1.last + 1) * 512;
    // Behind the last partition: 32 sectors of entries and one of header.
    let smallest = end + 33 * 512;
    assert_eq!(table.fitted(smallest).map(|t| t.last_usable), Some(table.entries[2].1.last));
    assert_eq!(table.fitted(smallest - 512), None);
    assert_eq!(table.fitted(0), None);
}

#[test]
fn only_what_is_last_and_has_room_behind_it_grows() {
    let table = table(512);
    assert!(table.grown(2 * SIZE, guid::STATE).is_some());
    assert_eq!(table.grown(SIZE, guid::STATE), None, "no room");
    assert_eq!(table.grown(SIZE / 2, guid::STATE), None, "smaller");
    assert_eq!(table.grown(2 * SIZE, guid::SLOT_A), None, "not the last");
    assert_eq!(table.grown(0, guid::STATE), None);
    let grown = table.grown(2 * SIZE, guid::STATE).unwrap();
    let last = grown.find(guid::STATE).unwrap().last;
    assert!(((last + 1) * 512).is_multiple_of(MIB) && last <= grown.last_usable);
    assert!((last + 1) * 512 + MIB > 2 * SIZE - 33 * 512, "all that is there");
}

/// Whether a table is believed whose only whole header, at the start or the end, was changed and has
/// a right checksum; the entries lie at their place and at sector `also`.
fn header_believed(primary: bool, also: u64, change: impl FnOnce(&mut [u8])) -> bool {
    let mut disk = disk(512);
    let end = last(&disk);
    let (at, other) = if primary { (1, end) } else { (end, 1) };
    let mut entries = vec![0; 32 * 512];
    disk.read(2 * 512, &mut entries).unwrap();
    disk.write(also * 512, &entries).unwrap();
    disk.damage(other, |bytes| bytes.fill(0));
    disk.damage(at, |bytes| {
        change(bytes);
        bytes[16..20].fill(0);
        let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&bytes[..92]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    });
    gpt::read(&mut disk).is_ok()
}

#[test]
fn headers_with_right_checksums_and_wrong_places_are_not_believed() {
    let long = |at: usize, value: u64| {
        move |bytes: &mut [u8]| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    let (end, last_usable) = (SIZE / 512 - 1, table(512).last_usable);
    const SELF: usize = 24;
    const OTHER: usize = 32;
    const ENTRIES: usize = 72;
    const ENTRY_SIZE: usize = 84;
    for primary in [true, false] {
        assert!(header_believed(primary, 100, |_| {}));
        let inside = header_believed(primary, 100, long(ENTRIES, 100));
        assert!(!inside, "entries where partitions lie");
        let size = |bytes: &mut [u8]| bytes[ENTRY_SIZE] = 64;
        assert!(!header_believed(primary, 100, size), "entries of another size");
    }
    let over = header_believed(false, last_usable, long(ENTRIES, last_usable));
    assert!(!over, "entries over the last usable sector");
    assert!(!header_believed(true, 100, long(OTHER, end + 1)), "a backup behind the end");
    let mut copied = vec![0; 512];
    disk(512).read(512, &mut copied).unwrap();
    let elsewhere = header_believed(false, 100, |bytes| bytes.copy_from_slice(&copied));
    assert!(!elsewhere, "the primary's header at the backup's place");
    assert!(!header_believed(false, 100, long(SELF, 1)), "a header of another place");
}

#[test]
fn headers_of_a_strange_size_are_not_read() {
    for size in [0_u32, 91, 513, u32::MAX] {
        let mut disk = disk(512);
        for sector in [1, last(&disk)] {
            disk.damage(sector, |bytes| bytes[12..16].copy_from_slice(&size.to_le_bytes()));
        }
        let bounds = Error::Invalid(Invalid::Bounds, Invalid::Bounds);
        assert_eq!(gpt::read(&mut disk), Err(bounds), "{size}");
    }
}

#[test]
fn what_fits_to_the_sector_is_appended_and_what_is_empty_is_not() {
    let empty = Table::new(Guid([1; 16]), 512, SIZE).unwrap();
    let first = MIB / 512;
    let room = (empty.last_usable - first + 1) * 512;
    let last = |size| {
        let made = empty.clone().append(guid::STATE, Guid([4; 16]), "x", Some(size));
        made.map(|table| table.entries[0].1.last)
    };
    assert_eq!(last(0), None);
    assert_eq!(last(1), Some(first));
    assert_eq!(last(room), Some(empty.last_usable));
    assert_eq!(last(room + 1), None);
}

#[test]
fn a_disk_too_small_for_a_table_has_none() {
    let mut two = StrictDisk::zeroed(512, 1024);
    let absent = Error::Invalid(Invalid::Absent, Invalid::Absent);
    assert_eq!(gpt::read(&mut two), Err(absent));
    for size in [0, 512, 4096, 30_000] {
        assert_eq!(Table::new(Guid([1; 16]), 512, size), None);
        let mut disk = StrictDisk::zeroed(512, size / 512 * 512);
        assert!(gpt::read(&mut disk).is_err());
    }
    assert!(table(512).append(guid::SLOT_B, Guid([5; 16]), "x", Some(MIB)).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_believed_lies_on_the_disk_and_can_be_written_back(
        sectors in 0_u64..300, first in 0_u64..300, last in 0_u64..300, capacity in 1_u32..2000,
        bounds in prop::collection::vec((0_u64..300, 0_u64..300), 0..3),
    ) {
        const SMALL: u64 = 200;
        let entries = bounds.into_iter().map(|(first, last)| Entry {
            kind: guid::STATE,
            id: Guid([4; 16]),
            first,
            last,
            attributes: 0,
            name: String::new(),
        });
        let capacity = if capacity < 1000 { capacity % 12 + 3 } else { capacity };
        let hostile = Table {
            disk: Guid([1; 16]),
            sector_size: 512,
            sectors,
            first_usable: first,
            last_usable: last,
            capacity,
            entries: (0..).zip(entries).collect(),
        };
        let mut disk = StrictDisk::zeroed(512, SMALL * 512);
        for write in hostile.writes() {
            if write.at + write.data.len() as u64 <= disk.size() {
                disk.write(write.at, &write.data).unwrap();
            }
        }
        let Ok((table, _)) = gpt::read(&mut disk) else { return Ok(()) };
        for write in table.writes() {
            prop_assert!(write.at + write.data.len() as u64 <= disk.size());
            let sectors = write.at / 512..(write.at + write.data.len() as u64) / 512;
            for (_, entry) in &table.entries {
                prop_assert!(entry.last < sectors.start || entry.first >= sectors.end);
            }
        }
    }

    #[test]
    fn a_table_comes_back(sizes in prop::collection::vec(1_u64..3_000_000, 1..16), large in any::<bool>()) {
        let sector_size = if large { 4096 } else { 512 };
        let mut table = Table::new(Guid([1; 16]), sector_size, SIZE).unwrap();
        for (size, number) in sizes.into_iter().zip(2_u8..) {
            let Some(next) =
                table.clone().append(guid::STATE, Guid([number; 16]), "größer", Some(size))
            else {
                break;
            };
            table = next;
        }
        let mut disk = StrictDisk::zeroed(sector_size, SIZE);
        table.store(&mut disk).unwrap();
        prop_assert_eq!(gpt::read(&mut disk), Ok((table, Copy::Primary)));
    }
}
