//! A disk that is made: the table comes last, and nothing of what was there counts any more.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use partition_layout::boot_state::{ImageFacts, factory};
use partition_layout::disk::{Disk as _, Region, RegionError};
use partition_layout::fresh::{self, Error, Fresh};
use partition_layout::gpt::{self, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::layout::MIB;
use partition_layout::places;
use strict_disk::StrictDisk;

const SIZE: u64 = 64 * MIB;
const DISK_ID: [u8; 16] = [7; 16];

fn table(sector_size: u32) -> Table {
    let parts = [(guid::ESP, 1), (guid::RECORD, 16), (guid::SLOT_A, 2), (guid::SLOT_B, 2)];
    let empty = Table::new(Guid([1; 16]), sector_size, SIZE).unwrap();
    (2..).zip(parts).fold(empty, |table, (id, (kind, mib))| {
        table.append(kind, Guid([id; 16]), "part", Some(mib * MIB)).unwrap()
    })
}

/// Makes the disk, with `release` in slot A; `checked` is what reading it back says.
fn make(
    disk: &mut StrictDisk,
    release: u64,
    checked: Result<(), &'static str>,
) -> Result<(), Error<strict_disk::Failure, &'static str>> {
    let table = table(disk.sector_size());
    let record = factory(DISK_ID, ImageFacts { release, secver: 1, digest: [3; 32] });
    let fresh = Fresh { table: &table, disk_id: DISK_ID, record: &record };
    fresh::write(disk, &fresh, |_| Ok(()), |_| checked)
}

fn record(disk: &mut StrictDisk) -> places::Loaded {
    let unit = u64::from(disk.sector_size());
    let (table, _) = gpt::read(disk).unwrap();
    let entry = table.find(guid::RECORD).unwrap();
    let mut region = Region::new(disk, entry.first * unit, entry.sectors() * unit).unwrap();
    places::load(&mut region).unwrap()
}

#[test]
fn of_an_older_record_nothing_is_left() {
    for sector_size in [512, 4096] {
        let mut disk = StrictDisk::zeroed(sector_size, SIZE);
        for release in 1..=3 {
            make(&mut disk, release, Ok(())).unwrap();
            let loaded = record(&mut disk);
            let known = loaded.generations.iter().flatten().count();
            assert_eq!((known, loaded.damaged), (1, 0), "release {release}");
            assert_eq!(
                loaded.newest.unwrap().1.slot(partition_layout::slot::Slot::A).release,
                release
            );
        }
    }
}

#[test]
fn what_does_not_read_back_gets_no_table() {
    let mut disk = StrictDisk::zeroed(512, SIZE);
    make(&mut disk, 1, Ok(())).unwrap();
    let failed = make(&mut disk, 2, Err("other bytes"));
    assert!(matches!(failed, Err(Error::Contents("other bytes"))), "{failed:?}");
    assert!(gpt::read(&mut disk).is_err());
}

#[test]
fn a_partition_may_reach_to_the_backup_of_the_table() {
    let mut disk = StrictDisk::zeroed(512, SIZE);
    let mut exact = table(512);
    let usable = exact.last_usable;
    let entry = exact.entries.iter_mut().find(|(_, entry)| entry.kind == guid::SLOT_B).unwrap();
    entry.1.last = usable;
    let record = factory(DISK_ID, ImageFacts { release: 1, secver: 1, digest: [3; 32] });
    let fresh = Fresh { table: &exact, disk_id: DISK_ID, record: &record };
    fresh::write(&mut disk, &fresh, |_| Ok::<_, String>(()), |_| Ok(())).unwrap();
    assert_eq!(gpt::read(&mut disk).unwrap().0, exact);
}

#[test]
fn what_failed_is_named() {
    let said = |error: Error<&str, &str>| error.to_string();
    assert!(said(Error::OtherDisk).contains("another disk"));
    assert!(said(Error::NoPartition(guid::ESP)).contains(&guid::ESP.to_string()));
    assert_eq!(said(Error::Contents("other bytes")), "other bytes");
    for (error, step) in [
        (Error::Clear("x"), "clear away"),
        (Error::Identity(RegionError::Disk("x")), "identity"),
        (Error::Record(places::Error::Read(RegionError::Disk("x"))), "write the boot record"),
        (Error::Flush("x"), "durable"),
        (Error::Table("x"), "partition table"),
    ] {
        let told = said(error);
        assert!(told.contains(step) && told.contains('x'), "{told}");
    }
}

#[test]
fn a_table_that_does_not_fit_changes_nothing() {
    let mut disk = StrictDisk::zeroed(512, SIZE);
    make(&mut disk, 1, Ok(())).unwrap();
    let before = disk.fingerprint(0..SIZE);
    let record = factory(DISK_ID, ImageFacts { release: 2, secver: 1, digest: [3; 32] });
    let mut refused = |table: &Table| {
        let fresh = Fresh { table, disk_id: DISK_ID, record: &record };
        let refused = fresh::write(&mut disk, &fresh, |_| Ok::<_, String>(()), |_| Ok(()));
        assert_eq!(disk.fingerprint(0..SIZE), before, "{refused:?}");
        refused.unwrap_err()
    };
    for kind in [guid::ESP, guid::RECORD, guid::SLOT_A, guid::SLOT_B] {
        let mut table = table(512);
        table.entries.retain(|(_, entry)| entry.kind != kind);
        assert!(matches!(refused(&table), Error::NoPartition(lacks) if lacks == kind), "{kind}");
        let mut table = self::table(512);
        let entry = table.entries.iter_mut().find(|(_, entry)| entry.kind == kind).unwrap();
        entry.1.last = SIZE;
        assert!(matches!(refused(&table), Error::NoPartition(off) if off == kind), "{kind}");
    }
    // To the last sector before the table's backup, and not one more.
    let mut exact = table(512);
    let usable = exact.last_usable;
    let entry = exact.entries.iter_mut().find(|(_, entry)| entry.kind == guid::SLOT_B).unwrap();
    entry.1.last = usable + 1;
    assert!(matches!(refused(&exact), Error::NoPartition(off) if off == guid::SLOT_B));
    let larger = table(512).fitted(SIZE + MIB).unwrap();
    for other in [larger, table(4096)] {
        assert!(matches!(refused(&other), Error::OtherDisk), "{other:?}");
    }
}
