//! What lies on our own disk: its partitions, the record, the slots and their kernel images.

use core::fmt;

use partition_layout::boot_state::ImageFacts;
use partition_layout::boot_variable::Extent;
use partition_layout::disk::{Disk, Region, RegionError};
use partition_layout::gpt::{self, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::places;
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use partition_layout::slot_image::{HEADER_SIZE, Header, TRAILER_SIZE, Trailer};
use sha2::{Digest, Sha256};

use crate::device_path::Partition;

/// A kernel image is read and hashed in pieces of this size, no larger than one transfer.
const PIECE: usize = 1024 * 1024;

/// Why a slot has no kernel image for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable<E> {
    /// The table has no such partition.
    NoPartition,
    /// Header or trailer is none of ours, or contradicts itself.
    NotAnImage,
    /// The disk failed.
    Read(E),
    /// There is not so much memory: bytes wanted.
    Memory(usize),
    /// The bytes are not those that the trailer names.
    Altered,
}

impl<E: fmt::Debug> fmt::Display for Unusable<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartition => f.write_str("no partition in the table"),
            Self::NotAnImage => f.write_str("no valid header and trailer"),
            Self::Read(error) => write!(f, "read failed, {error:?}"),
            Self::Memory(bytes) => write!(f, "no memory for {bytes} bytes"),
            Self::Altered => f.write_str("kernel image differs from the trailer's hash"),
        }
    }
}

/// Why there is no record, or why it was not stored.
pub type NoRecord<E> = places::Error<RegionError<E>>;

/// Our own disk, with its table read.
pub struct Slots<D> {
    /// The disk.
    pub disk: D,
    table: Option<Table>,
}

impl<D: Disk> Slots<D> {
    /// Reads the table: the primary, else the backup, and says which. Without one there are no
    /// slots, and recovery is what is left.
    pub fn read(mut disk: D) -> (Self, Result<gpt::Copy, gpt::Error<D::Error>>) {
        let (table, found) = match gpt::read(&mut disk) {
            Ok((table, copy)) => (Some(table), Ok(copy)),
            Err(error) => (None, Err(error)),
        };
        (Self { disk, table }, found)
    }

    /// The disk alone, for recovery when even the table may not be read.
    pub fn without_table(disk: D) -> Self {
        Self { disk, table: None }
    }

    /// The only partition of a type, as a device path names it.
    pub fn partition(&self, kind: Guid) -> Option<Partition> {
        let table = self.table.as_ref()?;
        // More than one of a type is none: nobody says which is ours.
        let only = table.find(kind)?;
        let (index, entry) = table.entries.iter().find(|(_, entry)| entry == only)?;
        Some(Partition {
            number: index.checked_add(1)?,
            first_lba: entry.first,
            sectors: entry.sectors(),
            guid: entry.id.0,
        })
    }

    /// Where a slot lies; zeros where it is not.
    pub fn extent(&self, slot: Slot) -> Extent {
        extent(self.partition(kind(slot)))
    }

    /// Where the record lies; zeros where it is not.
    pub fn record_extent(&self) -> Extent {
        extent(self.partition(guid::RECORD))
    }

    /// The places of the record; `None` without a partition for it.
    ///
    /// # Errors
    /// The disk's, or a partition that is none of ours.
    pub fn load_record(&mut self) -> Option<Result<places::Loaded, NoRecord<D::Error>>> {
        Some(places::load(&mut self.region(guid::RECORD)?))
    }

    /// Writes `record` to the oldest place, flushes, reads back. The record as it is on the disk;
    /// `None` without a partition for it.
    ///
    /// # Errors
    /// Then the one before is still the newest.
    pub fn store_record(&mut self, record: &Record) -> Option<Result<Record, NoRecord<D::Error>>> {
        let mut region = self.region(guid::RECORD)?;
        Some(
            places::load(&mut region)
                .and_then(|loaded| places::store(&mut region, &loaded, record)),
        )
    }

    /// What the trailer of a slot says, if it has one.
    pub fn facts(&mut self, slot: Slot) -> Option<ImageFacts> {
        let trailer = self.trailer(slot).ok()?;
        Some(ImageFacts { release: trailer.release, secver: trailer.secver, digest: [0; 32] })
    }

    /// Reads a slot's kernel image into `memory` of its size and compares it with its trailer.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn kernel<M: AsMut<[u8]>>(
        &mut self,
        slot: Slot,
        memory: impl FnOnce(usize) -> Option<M>,
    ) -> Result<(M, Trailer), Unusable<D::Error>> {
        let trailer = self.trailer(slot)?;
        let size = usize::try_from(trailer.uki_size).map_err(|_| Unusable::NotAnImage)?;
        let mut bytes = memory(size).ok_or(Unusable::Memory(size))?;
        let mut region = self.region(kind(slot)).ok_or(Unusable::NoPartition)?;
        let mut hash = Sha256::new();
        let mut at = trailer.uki_at;
        for piece in bytes.as_mut().chunks_mut(PIECE) {
            read(&mut region, at, piece)?;
            hash.update(&*piece);
            at = at.saturating_add(piece.len() as u64);
        }
        if hash.finalize()[..] != trailer.uki_sha256[..] {
            return Err(Unusable::Altered);
        }
        Ok((bytes, trailer))
    }

    fn trailer(&mut self, slot: Slot) -> Result<Trailer, Unusable<D::Error>> {
        let mut region = self.region(kind(slot)).ok_or(Unusable::NoPartition)?;
        let mut header = [0; HEADER_SIZE];
        read(&mut region, 0, &mut header)?;
        let header = Header::decode(&header).map_err(|_| Unusable::NotAnImage)?;
        let mut trailer = [0; TRAILER_SIZE];
        let end = header.trailer_at.checked_add(TRAILER_SIZE as u64);
        if end.is_none_or(|end| end > region.size()) {
            return Err(Unusable::NotAnImage);
        }
        read(&mut region, header.trailer_at, &mut trailer)?;
        let trailer = Trailer::decode(&trailer).map_err(|_| Unusable::NotAnImage)?;
        if !trailer.fits(header.trailer_at) {
            return Err(Unusable::NotAnImage);
        }
        Ok(trailer)
    }

    fn region(&mut self, kind: Guid) -> Option<Region<&mut D>> {
        let partition = self.partition(kind)?;
        let sector = u64::from(self.disk.sector_size());
        let start = partition.first_lba.checked_mul(sector)?;
        Region::new(&mut self.disk, start, partition.sectors.checked_mul(sector)?)
    }
}

/// Reads at the start of a sector; of the last sector, only what `into` has room for.
fn read<D: Disk>(
    region: &mut Region<&mut D>,
    at: u64,
    into: &mut [u8],
) -> Result<(), Unusable<D::Error>> {
    let sector = region.sector_size().max(1) as usize;
    let mut whole = |at, into: &mut [u8]| {
        region.read(at, into).map_err(|error| match error {
            RegionError::OutOfBounds => Unusable::NotAnImage,
            RegionError::Disk(error) => Unusable::Read(error),
        })
    };
    let (front, tail) = into.split_at_mut(into.len() / sector * sector);
    if !front.is_empty() {
        whole(at, front)?;
    }
    if !tail.is_empty() {
        let mut last = alloc::vec![0; sector];
        whole(at.saturating_add(front.len() as u64), &mut last)?;
        for (to, from) in tail.iter_mut().zip(last) {
            *to = from;
        }
    }
    Ok(())
}

/// The partition type of a slot.
pub fn kind(slot: Slot) -> Guid {
    match slot {
        Slot::A => guid::SLOT_A,
        Slot::B => guid::SLOT_B,
    }
}

fn extent(partition: Option<Partition>) -> Extent {
    partition.map_or_else(Extent::default, |partition| Extent {
        first: partition.first_lba,
        sectors: partition.sectors,
    })
}
