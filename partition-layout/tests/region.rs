//! A region of a disk: what lies in it is reached, and nothing beside it.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use partition_layout::disk::{Disk as _, Region, RegionError};
use strict_disk::StrictDisk;

const SECTOR: u64 = 512;

#[test]
fn an_access_lands_at_its_place_and_is_flushed() {
    let mut disk = StrictDisk::new(512, 8 * SECTOR);
    let mut region = Region::new(&mut disk, 2 * SECTOR, 3 * SECTOR).unwrap();
    assert_eq!((region.size(), region.sector_size()), (3 * SECTOR, 512));
    region.write(2 * SECTOR, &[7; 512]).unwrap();
    region.flush().unwrap();
    let mut found = [0; 512];
    region.read(2 * SECTOR, &mut found).unwrap();
    assert_eq!(found, [7; 512]);
    assert!(disk.unflushed().is_empty(), "flushed");
    disk.read(4 * SECTOR, &mut found).unwrap();
    assert_eq!(found, [7; 512]);
}

#[test]
fn no_access_leaves_it() {
    let mut disk = StrictDisk::new(512, 8 * SECTOR);
    let mut region = Region::new(&mut disk, 2 * SECTOR, 3 * SECTOR).unwrap();
    for (at, sectors) in [(3, 1), (2, 2), (0, 4), (u64::MAX / SECTOR, 1), (8, 1)] {
        let mut bytes = vec![0; sectors * 512];
        assert_eq!(region.write(at * SECTOR, &bytes), Err(RegionError::OutOfBounds), "{at}");
        assert_eq!(region.read(at * SECTOR, &mut bytes), Err(RegionError::OutOfBounds), "{at}");
    }
    assert!(disk.unflushed().is_empty());
}

#[test]
fn a_region_lies_on_its_disk() {
    for (start, size, lies) in [
        (0, 8, true),
        (7, 1, true),
        (8, 0, true),
        (7, 2, false),
        (9, 0, false),
        (u64::MAX / SECTOR, 8, false),
    ] {
        let region = Region::new(StrictDisk::new(512, 8 * SECTOR), start * SECTOR, size * SECTOR);
        assert_eq!(region.is_some(), lies, "{start}, {size}");
    }
}
