//! A whole disk through the firmware's block protocol.

use core::ptr::NonNull;

use partition_layout::disk::Disk;
use uefi::Handle;
use uefi_raw::Status;
use uefi_raw::protocol::block::BlockIoProtocol;

use super::memory::Pages;
use super::{table, watchdog};

/// Sector sizes that exist.
const SECTOR_SIZES: [usize; 4] = [512, 1024, 2048, 4096];
/// The watchdog is petted after so many bytes: slow is not hung.
const PET_BYTES: usize = 4 * 1024 * 1024;
/// A failed read is tried so often in all before it counts.
const READS_MAX: usize = 2;

/// What the firmware says of a disk.
pub struct WholeDisk {
    block: NonNull<BlockIoProtocol>,
    sector: usize,
    sectors: u64,
    transfer: Pages,
    unpetted: usize,
}

impl WholeDisk {
    /// Opens the block protocol of `handle`, which must be a disk and no partition.
    ///
    /// Never exclusively: that would disconnect the drivers above it.
    pub fn open(handle: Handle) -> Result<Self, Status> {
        let block: NonNull<BlockIoProtocol> = table::interface(handle, &BlockIoProtocol::GUID)?;
        // SAFETY: the interface is valid while its driver is connected; `media` is checked.
        let media = unsafe { block.as_ref().media.as_ref() }.ok_or(Status::NO_MEDIA)?;
        if bool::from(media.logical_partition) || !bool::from(media.media_present) {
            return Err(Status::NO_MEDIA);
        }
        let sector = media.block_size as usize;
        let sectors = media.last_block.checked_add(1).ok_or(Status::BAD_BUFFER_SIZE)?;
        if !SECTOR_SIZES.contains(&sector) {
            return Err(Status::BAD_BUFFER_SIZE);
        }
        let transfer = Pages::for_transfer().ok_or(Status::OUT_OF_RESOURCES)?;
        // A page satisfies every alignment that is known; more than the buffer has is refused.
        let align = media.io_align.max(1) as usize;
        if transfer.address() % align != 0 {
            return Err(Status::BAD_BUFFER_SIZE);
        }
        Ok(Self { block, sector, sectors, transfer, unpetted: 0 })
    }

    /// Where reads land, for the log: address and bytes.
    pub fn transfer(&self) -> (usize, usize) {
        (self.transfer.address(), self.transfer.bytes().len())
    }

    /// The id is read anew each time: firmware may change it when it resets a device.
    fn media_id(&self) -> Result<u32, Status> {
        // SAFETY: as in `open`.
        let media = unsafe { self.block.as_ref().media.as_ref() }.ok_or(Status::NO_MEDIA)?;
        Ok(media.media_id)
    }

    /// Reads whole sectors into the front of the transfer buffer.
    fn fill(&mut self, lba: u64, bytes: usize) -> Result<(), Status> {
        let mut last = Status::DEVICE_ERROR;
        for _ in 0..READS_MAX {
            let id = self.media_id()?;
            let into = self.transfer.bytes_mut().get_mut(..bytes).ok_or(Status::BAD_BUFFER_SIZE)?;
            // SAFETY: `into` is `bytes` long, ours, and aligned as the device asks.
            let status = unsafe {
                (self.block.as_ref().read_blocks)(
                    self.block.as_ptr(),
                    id,
                    lba,
                    bytes,
                    into.as_mut_ptr().cast(),
                )
            };
            match table::checked(status) {
                Ok(()) => return Ok(()),
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    fn pet(&mut self, bytes: usize) {
        self.unpetted += bytes;
        if self.unpetted >= PET_BYTES {
            self.unpetted = 0;
            watchdog::arm(watchdog::LOADING_S);
        }
    }

    /// First sector, skipped bytes in it, and the largest whole-sector transfer for `wanted`.
    fn span(&self, at: u64, wanted: usize) -> Result<(u64, usize, usize), Status> {
        let sector = self.sector as u64;
        let lba = at / sector;
        let skip = (at % sector) as usize;
        let room = self.transfer.bytes().len() / self.sector * self.sector;
        let bytes = skip.saturating_add(wanted).min(room).next_multiple_of(self.sector).min(room);
        let end = lba.checked_add(bytes as u64 / sector).ok_or(Status::INVALID_PARAMETER)?;
        if end > self.sectors {
            return Err(Status::INVALID_PARAMETER);
        }
        Ok((lba, skip, bytes))
    }
}

impl Disk for WholeDisk {
    type Error = Status;

    fn sector_size(&self) -> u32 {
        // One of SECTOR_SIZES.
        self.sector as u32
    }

    fn size(&self) -> u64 {
        self.sectors.saturating_mul(self.sector as u64)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Status> {
        let mut done = 0;
        while done < into.len() {
            let rest = into.get_mut(done..).unwrap_or_default();
            let (lba, skip, bytes) = self.span(at.saturating_add(done as u64), rest.len())?;
            self.fill(lba, bytes)?;
            let read = self.transfer.bytes().get(skip..bytes).ok_or(Status::BAD_BUFFER_SIZE)?;
            let count = read.len().min(rest.len());
            for (to, from) in rest.chunks_mut(count).zip(read.chunks(count)).take(1) {
                to.copy_from_slice(from);
            }
            done += count;
            self.pet(bytes);
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Status> {
        let sector = self.sector as u64;
        let whole = data.len().is_multiple_of(self.sector) && at.is_multiple_of(sector);
        let (lba, _, bytes) = self.span(at, data.len())?;
        if !whole || bytes != data.len() {
            return Err(Status::BAD_BUFFER_SIZE);
        }
        let id = self.media_id()?;
        let from = self.transfer.bytes_mut().get_mut(..bytes).ok_or(Status::BAD_BUFFER_SIZE)?;
        from.copy_from_slice(data);
        // SAFETY: `from` is `bytes` long and aligned; the protocol lives as in `open`.
        table::checked(unsafe {
            (self.block.as_ref().write_blocks)(
                self.block.as_ptr(),
                id,
                lba,
                bytes,
                from.as_ptr().cast(),
            )
        })
    }

    fn flush(&mut self) -> Result<(), Status> {
        // SAFETY: the protocol lives as in `open`.
        table::checked(unsafe { (self.block.as_ref().flush_blocks)(self.block.as_ptr()) })
    }
}
