//! Memory from the firmware, where what is read by a disk goes low and all else goes anywhere.

use core::ptr::NonNull;
use core::slice;

use uefi::boot::{self, AllocateType, MemoryType};

/// UEFI's page, whatever the processor's is.
const PAGE_BYTES: usize = 4096;
/// Some firmware cannot let a disk write above this.
const LOW_END: u64 = 0xffff_ffff;
/// Largest single read: some firmware fails beyond, and its failure can spoil later reads.
const TRANSFER_MAX: usize = 1024 * 1024;
/// A transfer buffer smaller than this is not worth having low.
const TRANSFER_MIN: usize = 16 * 1024;

/// Pages that are given back when dropped.
pub struct Pages {
    start: NonNull<u8>,
    pages: usize,
    length: usize,
}

impl Pages {
    /// At least `bytes`, at any address, zeroed by nobody but readable: the firmware owns it all.
    pub fn anywhere(bytes: usize) -> Option<Self> {
        Self::of(AllocateType::AnyPages, bytes)
    }

    /// A buffer for reads from a disk: below 4 GiB and 1 MiB long if that can be had, shorter
    /// if not, at last anywhere.
    pub fn for_transfer() -> Option<Self> {
        let mut bytes = TRANSFER_MAX;
        while bytes >= TRANSFER_MIN {
            if let Some(pages) = Self::of(AllocateType::MaxAddress(LOW_END), bytes) {
                return Some(pages);
            }
            bytes /= 2;
        }
        Self::of(AllocateType::AnyPages, TRANSFER_MAX)
            .or_else(|| Self::of(AllocateType::AnyPages, TRANSFER_MIN))
    }

    fn of(place: AllocateType, bytes: usize) -> Option<Self> {
        let pages = bytes.div_ceil(PAGE_BYTES).max(1);
        let start = boot::allocate_pages(place, MemoryType::LOADER_DATA, pages).ok()?;
        // SAFETY: the firmware just gave these pages to us alone. Zeroing makes them initialised.
        unsafe { start.write_bytes(0, pages * PAGE_BYTES) };
        Some(Self { start, pages, length: bytes })
    }

    /// Physical address of the first byte.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: ours alone, initialised, `length` is at most what was allocated.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl AsMut<[u8]> for Pages {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by `of` with this count; no reference outlives `self`. A failure
        // would only mean less memory.
        let _ = unsafe { boot::free_pages(self.start, self.pages) };
    }
}
