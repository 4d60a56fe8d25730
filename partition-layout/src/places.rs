//! Where the record lies on the disk, and how it is stored.
//!
//! The record partition (16 MiB or more): one sector of identity at its start, never rewritten, and
//! eight places for one record at 1 MiB, 2 MiB … 8 MiB, each one logical sector. So far apart no
//! two share an erase page or fall to one stuck sector.
//!
//! | step of [`store`] | a power cut here leaves |
//! |---|---|
//! | write to the oldest writable place | the newest record as it was, the place torn at worst |
//! | flush | the same, or the new record |
//! | read back | the new record |
//!
//! Identity block, the first 512 bytes: magic `BASCDSK1`, version u16 = 1, 2 zero bytes, CRC-32C
//! u32 over the 512 bytes with this field zero, disk id 16, sector size u32, number of places u32,
//! stride of the places u64 in bytes.
//!
//! Assumptions about the medium:
//! 1. A write leaves other sectors alone.
//! 2. A torn sector fails its checksum.
//! 3. A completed flush is on the medium. Common firmware does not flush SATA and SCSI disks: os-init
//!    stores the loader's last write again, and a power cut before that costs one extra try.

use crate::bytes::{array, crc32c, put, u16_at, u32_at, u64_at};
use crate::disk::Disk;
use crate::layout::MIB;
use crate::record::{RECORD_SIZE, Record};
use alloc::vec;
use alloc::vec::Vec;

/// Number of places.
pub const PLACES: usize = 8;
/// Distance between places, and of the first from the partition's start, in bytes.
pub const STRIDE: u64 = MIB;
/// Size of the identity block in bytes.
pub const IDENTITY_SIZE: usize = 512;
const MAGIC: &[u8; 8] = b"BASCDSK1";

/// The identity block for a disk.
#[must_use]
pub fn encode_identity(disk_id: [u8; 16], sector_size: u32) -> [u8; IDENTITY_SIZE] {
    let mut out = [0; IDENTITY_SIZE];
    put(&mut out, 0, MAGIC);
    put(&mut out, 8, &1_u16.to_le_bytes());
    put(&mut out, 16, &disk_id);
    put(&mut out, 32, &sector_size.to_le_bytes());
    put(&mut out, 36, &8_u32.to_le_bytes());
    put(&mut out, 40, &STRIDE.to_le_bytes());
    let crc = crc32c(&[&out]);
    put(&mut out, 12, &crc.to_le_bytes());
    out
}

/// The disk id of an identity block; `None` when these bytes are not ours.
#[must_use]
pub fn decode_identity(bytes: &[u8]) -> Option<[u8; 16]> {
    let block: [u8; IDENTITY_SIZE] = array(bytes, 0)?;
    let ours = block.starts_with(MAGIC)
        && u16_at(&block, 8) == Some(1)
        && u32_at(&block, 36) == Some(8)
        && u64_at(&block, 40) == Some(STRIDE)
        && u32_at(&block, 12) == Some(crc32c(&[&block[..12], &[0; 4], &block[16..]]));
    ours.then(|| array(&block, 16)).flatten()
}

/// Why the record could not be loaded or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error<E> {
    /// The partition does not begin with an identity block of ours; nothing was written.
    NotOurs,
    /// Reading failed.
    Read(E),
    /// No place took the record, or the generations are used up; the newest one before is still
    /// there.
    NoPlaceWritable,
}

/// What the places hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The disk's identity.
    pub disk_id: [u8; 16],
    /// The newest record of this disk and its place; `None` when every place is damaged.
    pub newest: Option<(usize, Record)>,
    /// Generation of each place, `None` where there is no valid record of this disk.
    pub generations: [Option<u64>; PLACES],
    /// Number of places that hold something else, or cannot be read. Zeros are not counted: such a
    /// place may never have been written. Each store mends one, since it takes them first.
    pub damaged: u8,
}

fn place_at(place: usize) -> u64 {
    // PLACES is 8: no overflow.
    STRIDE * (place as u64 + 1)
}

/// Where the places are, in bytes from the partition's start.
pub fn offsets() -> impl Iterator<Item = u64> {
    (0..PLACES).map(place_at)
}

fn read_sector<D: Disk>(disk: &mut D, at: u64) -> Result<Vec<u8>, D::Error> {
    let mut sector = vec![0; disk.sector_size().max(512) as usize];
    disk.read(at, &mut sector)?;
    Ok(sector)
}

/// Reads all places of the record partition `disk`. An unreadable place counts as damaged.
///
/// # Errors
/// [`Error::Read`] when the identity block cannot be read, [`Error::NotOurs`] when it is not ours.
pub fn load<D: Disk>(disk: &mut D) -> Result<Loaded, Error<D::Error>> {
    let identity = read_sector(disk, 0).map_err(Error::Read)?;
    let disk_id = decode_identity(&identity).ok_or(Error::NotOurs)?;
    let mut loaded = Loaded { disk_id, newest: None, generations: [None; PLACES], damaged: 0 };
    for place in 0..PLACES {
        let Ok(sector) = read_sector(disk, place_at(place)) else {
            loaded.damaged += 1;
            continue;
        };
        let decoded = Record::decode(&sector).ok().filter(|record| record.disk_id == disk_id);
        let Some(record) = decoded else {
            loaded.damaged += u8::from(sector.iter().any(|byte| *byte != 0));
            continue;
        };
        loaded.generations[place] = Some(record.generation);
        // A tie goes to the lower place.
        if loaded.newest.as_ref().is_none_or(|(_, best)| record.generation > best.generation) {
            loaded.newest = Some((place, record));
        }
    }
    Ok(loaded)
}

/// Makes `next` the newest record and returns it as stored: one generation later, read back.
///
/// `loaded` must be what the places hold now: load anew after each store, else the newest place is
/// overwritten. Does not check that the step was allowed; that is [`crate::boot_state`]'s part.
///
/// # Errors
/// [`Error::NoPlaceWritable`] when no place but the newest takes it. A place whose flush or read
/// back failed may hold it all the same: nobody acts on it, and the next load says what is true.
pub fn store<D: Disk>(
    disk: &mut D,
    loaded: &Loaded,
    next: &Record,
) -> Result<Record, Error<D::Error>> {
    let newest = loaded.newest.as_ref();
    let before = newest.map_or(0, |(_, record)| record.generation).max(next.generation);
    // Nobody writes that often: such a number is not ours, and the largest one is invalid.
    let generation =
        before.checked_add(1).filter(|g| *g != u64::MAX).ok_or(Error::NoPlaceWritable)?;
    let mut record = Record { generation, disk_id: loaded.disk_id, ..next.clone() };
    let bytes = record.encode();
    record.raw = bytes;
    for place in oldest_first(loaded) {
        if write_and_read_back(disk, place_at(place), &bytes) {
            return Ok(record);
        }
    }
    Err(Error::NoPlaceWritable)
}

/// Places in the order in which they are overwritten: damaged ones first, then by age; never the
/// newest.
fn oldest_first(loaded: &Loaded) -> Vec<usize> {
    let newest = loaded.newest.as_ref().map(|(place, _)| *place);
    let mut places: Vec<usize> = (0..PLACES).filter(|place| Some(*place) != newest).collect();
    places.sort_by_key(|place| loaded.generations[*place]);
    places
}

fn write_and_read_back<D: Disk>(disk: &mut D, at: u64, bytes: &[u8; RECORD_SIZE]) -> bool {
    let mut sector = vec![0; disk.sector_size().max(512) as usize];
    put(&mut sector, 0, bytes);
    if disk.write(at, &sector).is_err() || disk.flush().is_err() {
        return false;
    }
    read_sector(disk, at).is_ok_and(|read| read == sector)
}
