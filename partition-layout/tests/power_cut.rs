//! Every power cut in a store of the boot record, with every fate of every sector that was not
//! flushed: what is found afterwards is the old record or the new one, never neither.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use partition_layout::boot_state::{ImageFacts, factory};
use partition_layout::disk::Disk as _;
use partition_layout::places::{self, Error, PLACES, STRIDE, encode_identity};
use partition_layout::record::Record;
use strict_disk::{Failure, Fate, StrictDisk};

const DISK_ID: [u8; 16] = [7; 16];

fn fresh(sector_size: u32) -> StrictDisk {
    let mut disk = StrictDisk::zeroed(sector_size, 16 * STRIDE);
    let mut identity = vec![0; sector_size as usize];
    identity[..512].copy_from_slice(&encode_identity(DISK_ID, sector_size));
    disk.write(0, &identity).unwrap();
    disk.flush().unwrap();
    disk
}

/// A record that is known by its floor, with something in its last bytes: one that was half written
/// is told from a whole one.
fn record(floor: u32) -> Record {
    let facts = ImageFacts { release: 1, secver: 1, digest: [1; 32] };
    let mut record = Record { floor, ..factory(DISK_ID, facts) };
    record.raw[312..].fill(0x5A);
    record
}

/// Loads anew and stores a record that is known by its floor.
fn store(disk: &mut StrictDisk, floor: u32) -> Result<Record, Error<Failure>> {
    let loaded = places::load(disk)?;
    places::store(disk, &loaded, &record(floor))
}

fn newest(disk: &mut StrictDisk) -> Option<u32> {
    let (_, record) = places::load(disk).unwrap().newest?;
    assert_eq!(record.raw[312..], [0x5A; 200], "half a record is none");
    Some(record.floor)
}

fn sector_of(place: usize, sector_size: u32) -> u64 {
    STRIDE * (place as u64 + 1) / u64::from(sector_size)
}

/// One history: `before` stores, then one that the power cuts after `operations`, then a start.
fn cut_once(disk: &StrictDisk, before: u32, operations: u32, fate: Fate) {
    let history = || format!("{before} stores, cut after {operations} operations, {fate:?}");
    let mut disk = disk.clone();
    disk.operations_left = Some(operations);
    let done = store(&mut disk, before);
    disk.power_cut(|_| fate);
    disk.power_on();
    let found = newest(&mut disk);
    let old = before.checked_sub(1);
    if done.is_ok() {
        assert_eq!(found, Some(before), "stored, and gone: {}", history());
    } else {
        assert!(found == old || found == Some(before), "{found:?}: {}", history());
    }
    // The machine goes on, torn place or not.
    store(&mut disk, 1000).unwrap();
    disk.power_cut(|_| Fate::Lost);
    assert_eq!(newest(&mut disk), Some(1000), "{}", history());
}

#[test]
fn a_store_is_all_or_nothing() {
    // A load reads the identity and eight places; a store writes, flushes, reads back.
    const OPERATIONS: u32 = 1 + 8 + 3;
    for sector_size in [512, 4096] {
        let mut disk = fresh(sector_size);
        for before in 0..20 {
            for operations in 0..=OPERATIONS {
                for fate in Fate::ALL {
                    cut_once(&disk, before, operations, fate);
                }
            }
            store(&mut disk, before).unwrap();
        }
    }
}

#[test]
fn a_store_passes_over_places_that_do_not_take_it() {
    for broken in 0..1_u32 << PLACES {
        let broken: Vec<usize> = (0..PLACES).filter(|place| broken >> place & 1 == 1).collect();
        for silently in [false, true] {
            let mut disk = fresh(512);
            for floor in 0..5 {
                store(&mut disk, floor).unwrap();
            }
            let sectors = broken.iter().map(|place| sector_of(*place, 512));
            if silently {
                disk.stuck = sectors.collect();
            } else {
                disk.unwritable = sectors.collect();
            }
            let mut last = 4;
            for floor in 5..30 {
                match store(&mut disk, floor) {
                    Ok(_) => last = floor,
                    // One place may be the newest, and it is not overwritten.
                    Err(error) => {
                        assert_eq!(error, Error::NoPlaceWritable);
                        assert!(broken.len() >= PLACES - 1, "{broken:?}");
                    }
                }
                disk.power_cut(|_| Fate::Lost);
                assert_eq!(newest(&mut disk), Some(last), "{broken:?}");
            }
        }
    }
}

#[test]
fn the_newest_place_is_not_even_overwritten_where_no_other_takes_the_record() {
    for before in 1..2 * PLACES as u32 {
        let mut disk = fresh(512);
        for floor in 0..before {
            store(&mut disk, floor).unwrap();
        }
        let (newest_place, _) = places::load(&mut disk).unwrap().newest.unwrap();
        let others = (0..PLACES).filter(|place| *place != newest_place);
        disk.unwritable = others.map(|place| sector_of(place, 512)).collect();
        assert_eq!(store(&mut disk, 100), Err(Error::NoPlaceWritable));
        assert!(disk.unflushed().is_empty(), "after {before} stores");
        assert_eq!(newest(&mut disk), Some(before - 1));
    }
}

#[test]
fn any_seven_places_may_be_damaged_or_unreadable() {
    for good in 0..PLACES {
        let mut disk = fresh(512);
        // The good place holds the newest record: it is written in turn.
        for floor in 0..8 + good as u32 {
            store(&mut disk, floor).unwrap();
        }
        let (place, _) = places::load(&mut disk).unwrap().newest.unwrap();
        for other in (0..PLACES).filter(|other| *other != place) {
            let sector = sector_of(other, 512);
            if other % 2 == 0 {
                disk.unreadable.insert(sector);
            } else {
                // The field's favourite: a block whose tail is zeros.
                disk.damage(sector, |bytes| bytes[256..].fill(0));
            }
        }
        assert_eq!(newest(&mut disk), Some(7 + good as u32));
        assert_eq!(places::load(&mut disk).unwrap().damaged, 7, "each is told");
        store(&mut disk, 100).unwrap();
        assert_eq!(newest(&mut disk), Some(100));
    }
}

#[test]
fn only_records_of_this_disk_count_and_only_on_a_disk_of_ours() {
    let mut disk = fresh(512);
    store(&mut disk, 3).unwrap();
    // A place of another disk, copied here with a far higher generation.
    let mut foreign = record(9);
    foreign.disk_id = [8; 16];
    foreign.generation = 1 << 40;
    let bytes = foreign.encode();
    disk.write(5 * STRIDE, &bytes).unwrap();
    assert_eq!(newest(&mut disk), Some(3));
    // One that is stored is of this disk, whatever it was made from.
    let loaded = places::load(&mut disk).unwrap();
    let stored = places::store(&mut disk, &loaded, &Record { generation: 0, ..foreign }).unwrap();
    assert_eq!(stored.disk_id, DISK_ID);
    store(&mut disk, 3).unwrap();
    // The largest generation is invalid; the one before is the last that is believed.
    let mut last = record(9);
    last.generation = u64::MAX;
    assert!(Record::decode(&last.encode()).is_err());
    last.generation = u64::MAX - 1;
    disk.write(6 * STRIDE, &last.encode()).unwrap();
    assert_eq!(newest(&mut disk), Some(9));
    assert_eq!(store(&mut disk, 10), Err(Error::NoPlaceWritable));
    // Zeros are not ours: nothing is written.
    let mut blank = StrictDisk::zeroed(512, 16 * STRIDE);
    assert_eq!(places::load(&mut blank), Err(Error::NotOurs));
    assert_eq!(store(&mut blank, 1), Err(Error::NotOurs));
    assert!(blank.unflushed().is_empty());
}

#[test]
fn a_tie_goes_to_the_lower_place() {
    let mut disk = fresh(512);
    for (place, floor) in [(4, 40), (2, 20), (6, 60)] {
        let tied = Record { generation: 9, ..record(floor) };
        disk.write(STRIDE * (place + 1), &tied.encode()).unwrap();
    }
    assert_eq!(newest(&mut disk), Some(20));
}
