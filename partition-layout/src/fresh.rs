//! Making a Bascule disk: of an empty file, or over whatever a disk held before.
//!
//! The partition table is the last thing that is written. A power cut before leaves a disk without
//! any, from which no firmware starts and which an installer takes for an empty one; afterwards the
//! disk is finished. Whatever a table names is whole.

use alloc::vec;

use crate::bytes::put;
use crate::disk::{Disk, Region, RegionError};
use crate::gpt::Table;
use crate::guid::{self, Guid};
use crate::places::{self, IDENTITY_SIZE, encode_identity};
use crate::record::Record;
use crate::slot_image::HEADER_SIZE;

/// What a disk is made of, but for the contents of ESP and slot A.
#[derive(Debug, Clone, Copy)]
pub struct Fresh<'a> {
    /// Its partitions: those of [`crate::layout::FRESH`].
    pub table: &'a Table,
    /// The identity of its boot record.
    pub disk_id: [u8; 16],
    /// The first record; its generation is given when it is stored.
    pub record: &'a Record,
}

/// Why a disk was not made; it has no table then, or is what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error<E, C> {
    /// The table has no partition of this type, or more than one, or it lies off the disk.
    NoPartition(Guid),
    /// The disk's error.
    Disk(E),
    /// The record could not be stored.
    Record(places::Error<RegionError<E>>),
    /// What the caller says of the contents.
    Contents(C),
}

/// Makes the disk. `fill` writes ESP and slot A, `check` reads them back; only then is there a
/// table.
///
/// A power cut leaves, in this order: what the disk held; no table; the finished disk.
///
/// # Errors
/// [`Error`].
pub fn write<D: Disk, C>(
    disk: &mut D,
    fresh: &Fresh<'_>,
    fill: impl FnOnce(&mut D) -> Result<(), C>,
    check: impl FnOnce(&mut D) -> Result<(), C>,
) -> Result<(), Error<D::Error, C>> {
    let slots =
        [extent(disk, fresh.table, guid::SLOT_A)?, extent(disk, fresh.table, guid::SLOT_B)?];
    blank(disk).map_err(Error::Disk)?;
    for (at, _) in slots {
        // What was in a slot before must not be taken for an image when records are lost.
        let header = vec![0; HEADER_SIZE.max(disk.sector_size() as usize)];
        disk.write(at, &header).map_err(Error::Disk)?;
    }
    store_record(disk, fresh)?;
    fill(disk).map_err(Error::Contents)?;
    // Without this sector firmware believes no table: with it, and no table, there is nothing.
    disk.write(0, &fresh.table.protective_mbr()).map_err(Error::Disk)?;
    // A cut up to here: no table. All that it will name is on the medium behind this.
    disk.flush().map_err(Error::Disk)?;
    check(disk).map_err(Error::Contents)?;
    // A cut in here: none, or the second copy, or both; each of them is finished.
    fresh.table.store(disk).map_err(Error::Disk)
}

/// Takes the table from the disk, in both places, then sector 0, where older tables lie.
fn blank<D: Disk>(disk: &mut D) -> Result<(), D::Error> {
    let unit = u64::from(disk.sector_size().max(512));
    let zeros = vec![0; disk.sector_size().max(512) as usize];
    for sector in [1, (disk.size() / unit).saturating_sub(1)] {
        disk.write(sector * unit, &zeros)?;
    }
    disk.flush()?;
    disk.write(0, &zeros)?;
    // Nothing that a table names may change as long as there could be one.
    disk.flush()
}

fn store_record<D: Disk, C>(disk: &mut D, fresh: &Fresh<'_>) -> Result<(), Error<D::Error, C>> {
    let (at, size) = extent(disk, fresh.table, guid::RECORD)?;
    let mut region = Region::new(disk, at, size).ok_or(Error::NoPartition(guid::RECORD))?;
    let failed = |error| Error::Record(places::Error::Read(error));
    let mut sector = vec![0; region.sector_size().max(512) as usize];
    for place in places::offsets() {
        region.write(place, &sector).map_err(failed)?;
    }
    let identity: [u8; IDENTITY_SIZE] = encode_identity(fresh.disk_id, region.sector_size());
    put(&mut sector, 0, &identity);
    region.write(0, &sector).map_err(failed)?;
    let loaded = places::load(&mut region).map_err(Error::Record)?;
    places::store(&mut region, &loaded, fresh.record).map(drop).map_err(Error::Record)
}

/// First byte and size of the only partition of type `kind`.
fn extent<D: Disk, C>(
    disk: &D,
    table: &Table,
    kind: Guid,
) -> Result<(u64, u64), Error<D::Error, C>> {
    let unit = u64::from(disk.sector_size().max(512));
    let entry = table.find(kind).ok_or(Error::NoPartition(kind))?;
    let at = entry.first.checked_mul(unit);
    let size = entry.sectors().checked_mul(unit);
    at.zip(size).ok_or(Error::NoPartition(kind))
}
