//! What lies on our own disk: its partitions, the record, the slots and their kernel images.

use core::fmt;

use loader::device_path::{self, Partition};
use partition_layout::boot_state::ImageFacts;
use partition_layout::boot_variable::Extent;
use partition_layout::disk::{Disk as _, Region};
use partition_layout::gpt::{self, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::places;
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use partition_layout::slot_image::{HEADER_SIZE, Header, TRAILER_SIZE, Trailer};
use sha2::{Digest, Sha256};
use uefi_raw::Status;

use super::console::say;
use super::memory::Pages;
use super::own_disk::OwnDisk;

/// A kernel image is read and hashed in pieces of this size, no larger than one transfer.
const PIECE: usize = 1024 * 1024;

/// Why a slot has no kernel image for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// The table has no such partition.
    NoPartition,
    /// Header or trailer is none of ours, or contradicts itself.
    NotAnImage,
    /// The disk failed.
    Read(Status),
    /// There is not so much memory: bytes wanted.
    Memory(usize),
    /// The bytes are not those that the trailer names.
    Altered,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartition => f.write_str("no partition in the table"),
            Self::NotAnImage => f.write_str("no valid header and trailer"),
            Self::Read(status) => write!(f, "read failed, {status:?}"),
            Self::Memory(bytes) => write!(f, "no memory for {bytes} bytes"),
            Self::Altered => f.write_str("kernel image differs from the trailer's hash"),
        }
    }
}

/// A kernel image that is what its trailer says.
pub struct Kernel {
    /// The image.
    pub bytes: Pages,
    /// What the trailer says of it.
    pub trailer: Trailer,
}

/// Our own disk, with its table read.
pub struct Slots {
    /// The disk.
    pub own: OwnDisk,
    table: Option<Table>,
}

impl Slots {
    /// Reads the table: the primary, else the backup. Without one there are no slots, and
    /// recovery is what is left.
    pub fn read(mut own: OwnDisk) -> Self {
        let table = match gpt::read(&mut own.disk) {
            Ok((table, copy)) => {
                if copy == gpt::Copy::Backup {
                    say!("primary partition table damaged, the backup is used");
                }
                Some(table)
            }
            Err(error) => {
                say!("no partition table, {error:?}");
                None
            }
        };
        Self { own, table }
    }

    /// The disk alone, for recovery when even the table may not be read.
    pub fn without_table(own: OwnDisk) -> Self {
        Self { own, table: None }
    }

    /// The only partition of a type, as a device path names it.
    fn partition(&self, kind: Guid) -> Option<Partition> {
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

    /// The device path that a slot's kernel image is loaded under.
    pub fn kernel_path(&self, slot: Slot, trailer: &Trailer) -> alloc::vec::Vec<u8> {
        let name = alloc::format!("bascule-{}-{}.efi", slot.word(), trailer.version);
        device_path::file_in(&self.own.path, self.partition(kind(slot)).as_ref(), &name)
    }

    /// The device path for the recovery image: in the record partition, which never has a file
    /// system, so that the stub finds nothing of the ESP beside it.
    pub fn recovery_path(&self) -> alloc::vec::Vec<u8> {
        let partition = self.partition(guid::RECORD);
        device_path::file_in(&self.own.path, partition.as_ref(), "bascule-recovery.efi")
    }

    /// The places of the record.
    pub fn load_record(&mut self) -> Option<places::Loaded> {
        match places::load(&mut self.region(guid::RECORD)?) {
            Ok(loaded) => Some(loaded),
            Err(error) => {
                say!("no record, {error:?}");
                None
            }
        }
    }

    /// Writes `record` to the oldest place, flushes, reads back. The record as it is on the disk,
    /// or `None` when the one before is still the newest.
    pub fn store_record(&mut self, record: &Record) -> Option<Record> {
        let mut region = self.region(guid::RECORD)?;
        let stored = places::load(&mut region)
            .and_then(|loaded| places::store(&mut region, &loaded, record));
        match stored {
            Ok(stored) => Some(stored),
            Err(error) => {
                say!("record not written, {error:?}");
                None
            }
        }
    }

    /// What the trailer of a slot says, if it has one.
    pub fn facts(&mut self, slot: Slot) -> Option<ImageFacts> {
        let trailer = self.trailer(slot).ok()?;
        Some(ImageFacts { release: trailer.release, secver: trailer.secver, digest: [0; 32] })
    }

    /// Reads a slot's kernel image and compares it with its trailer.
    pub fn kernel(&mut self, slot: Slot) -> Result<Kernel, Unusable> {
        let trailer = self.trailer(slot)?;
        let size = usize::try_from(trailer.uki_size).map_err(|_| Unusable::NotAnImage)?;
        let mut bytes = Pages::anywhere(size).ok_or(Unusable::Memory(size))?;
        let mut region = self.region(kind(slot)).ok_or(Unusable::NoPartition)?;
        let mut hash = Sha256::new();
        let mut at = trailer.uki_at;
        for piece in bytes.bytes_mut().chunks_mut(PIECE) {
            read(&mut region, at, piece)?;
            hash.update(&*piece);
            at = at.saturating_add(piece.len() as u64);
        }
        if hash.finalize()[..] != trailer.uki_sha256[..] {
            return Err(Unusable::Altered);
        }
        Ok(Kernel { bytes, trailer })
    }

    fn trailer(&mut self, slot: Slot) -> Result<Trailer, Unusable> {
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

    fn region(&mut self, kind: Guid) -> Option<Region<&mut super::block::WholeDisk>> {
        let partition = self.partition(kind)?;
        let sector = u64::from(self.own.disk.sector_size());
        let start = partition.first_lba.checked_mul(sector)?;
        Region::new(&mut self.own.disk, start, partition.sectors.checked_mul(sector)?)
    }
}

fn read<D: partition_layout::disk::Disk<Error = Status>>(
    region: &mut Region<D>,
    at: u64,
    into: &mut [u8],
) -> Result<(), Unusable> {
    use partition_layout::disk::RegionError;
    region.read(at, into).map_err(|error| match error {
        RegionError::OutOfBounds => Unusable::NotAnImage,
        RegionError::Disk(status) => Unusable::Read(status),
    })
}

fn kind(slot: Slot) -> Guid {
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
