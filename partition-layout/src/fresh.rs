//! Making a Bascule disk: of an empty file, or over whatever a disk held before.
//!
//! The partition table is the last thing that is written. A power cut before leaves a disk without
//! any, which an installer takes for one that is still to be made; afterwards the disk is finished.
//! Whatever a table names is whole.
//!
//! What lies behind the slots is not touched: an ext4 file system that begins where state begins is
//! taken for this machine's state at the first boot. Who does not want it kept wipes it before.

use alloc::vec;
use core::fmt;

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

/// Why a disk was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error<E, C> {
    /// The table is that of a disk of another size or sector size; nothing was written.
    OtherDisk,
    /// The table has no partition of this type, or more than one, or it lies off the disk; nothing
    /// was written.
    NoPartition(Guid),
    /// What was there could not be cleared away; part of it may be left.
    Clear(E),
    /// The identity of the boot record could not be written; there is no table.
    Identity(RegionError<E>),
    /// The record could not be stored; there is no table.
    Record(places::Error<RegionError<E>>),
    /// What the caller says of the contents; there is no table.
    Contents(C),
    /// The contents could not be made durable; there is no table.
    Flush(E),
    /// The table could not be written; there may be none, or one that the firmware mends.
    Table(E),
}

impl<E: fmt::Debug, C: fmt::Display> fmt::Display for Error<E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherDisk => f.write_str("the table was made for another disk"),
            Self::NoPartition(kind) => write!(f, "the table lacks the partition of type {kind}"),
            Self::Clear(error) => write!(f, "clear away what was there: {error:?}"),
            Self::Identity(error) => write!(f, "write the boot record's identity: {error:?}"),
            Self::Record(error) => write!(f, "write the boot record: {error:?}"),
            Self::Contents(error) => error.fmt(f),
            Self::Flush(error) => write!(f, "make the contents durable: {error:?}"),
            Self::Table(error) => write!(f, "write the partition table: {error:?}"),
        }
    }
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
    let table = fresh.table;
    let unit = u64::from(disk.sector_size().max(512));
    if table.sector_size != disk.sector_size() || table.sectors != disk.size() / unit {
        return Err(Error::OtherDisk);
    }
    let place = |kind| {
        let entry = table.find(kind).ok_or(Error::NoPartition(kind))?;
        let (at, size) = (entry.first.saturating_mul(unit), entry.sectors().saturating_mul(unit));
        // Neither over the backup of the table, nor outside the disk.
        if entry.last > table.last_usable {
            return Err(Error::NoPartition(kind));
        }
        Ok((at, size))
    };
    place(guid::ESP)?;
    let slots = [place(guid::SLOT_A)?.0, place(guid::SLOT_B)?.0];
    let (record, size) = place(guid::RECORD)?;

    clear(disk, slots).map_err(Error::Clear)?;
    let region = Region::new(&mut *disk, record, size).ok_or(Error::NoPartition(guid::RECORD))?;
    store_record(region, fresh)?;
    fill(disk).map_err(Error::Contents)?;
    // Without this sector firmware believes no table: with it, and no table, there is nothing.
    disk.write(0, &table.protective_mbr()).map_err(Error::Flush)?;
    // A cut up to here: no table. All that it will name is on the medium behind this.
    disk.flush().map_err(Error::Flush)?;
    check(disk).map_err(Error::Contents)?;
    // A cut in here: none, or the second copy, or both; each of them is finished.
    table.store(disk).map_err(Error::Table)
}

/// Takes the table from the disk, in both places, then sector 0, where older tables lie, and what
/// was in the slots.
fn clear<D: Disk>(disk: &mut D, slots: [u64; 2]) -> Result<(), D::Error> {
    let unit = u64::from(disk.sector_size().max(512));
    let zeros = vec![0; disk.sector_size().max(512) as usize];
    for sector in [1, (disk.size() / unit).saturating_sub(1)] {
        disk.write(sector * unit, &zeros)?;
    }
    disk.flush()?;
    disk.write(0, &zeros)?;
    // Nothing that a table names may change as long as there could be one.
    disk.flush()?;
    const { assert!(HEADER_SIZE <= 512) };
    // It must not be taken for an image when records are lost.
    slots.into_iter().try_for_each(|at| disk.write(at, &zeros))
}

fn store_record<D: Disk, C>(
    mut region: Region<&mut D>,
    fresh: &Fresh<'_>,
) -> Result<(), Error<D::Error, C>> {
    let mut sector = vec![0; region.sector_size().max(512) as usize];
    for place in places::offsets() {
        // One that takes nothing is for the store to see.
        let _ = region.write(place, &sector);
    }
    let identity: [u8; IDENTITY_SIZE] = encode_identity(fresh.disk_id, region.sector_size());
    put(&mut sector, 0, &identity);
    region.write(0, &sector).map_err(Error::Identity)?;
    let loaded = places::load(&mut region).map_err(Error::Record)?;
    places::store(&mut region, &loaded, fresh.record).map(drop).map_err(Error::Record)
}
