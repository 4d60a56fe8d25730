//! A block device, reduced to what crash safety is about.

use core::fmt;

/// A block device. Offsets and lengths are in bytes and multiples of [`Disk::sector_size`].
pub trait Disk {
    /// What went wrong, in the implementer's words.
    type Error: fmt::Debug;

    /// Logical sector size in bytes: 512 or 4096.
    fn sector_size(&self) -> u32;

    /// Size in bytes.
    fn size(&self) -> u64;

    /// Reads from the medium, never from a cache that a write could still be sitting in.
    ///
    /// # Errors
    /// The device's; the buffer's content is then unspecified.
    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes. It may reach the medium now, later, in any order, in part, or as garbage; other
    /// sectors are never touched.
    ///
    /// # Errors
    /// The device's; the sectors' content is then unspecified.
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Returns once every earlier write is on stable media. The only ordering there is.
    ///
    /// # Errors
    /// The device's; nothing is known then.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

impl<D: Disk + ?Sized> Disk for &mut D {
    type Error = D::Error;

    fn sector_size(&self) -> u32 {
        (**self).sector_size()
    }

    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read(at, buf)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Self::Error> {
        (**self).write(at, data)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        (**self).flush()
    }
}

/// Why an access to a [`Region`] failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionError<E> {
    /// Outside the region: nothing was read or written.
    OutOfBounds,
    /// The device's error.
    Disk(E),
}

/// A bounded part of a disk: no access leaves it.
#[derive(Debug)]
pub struct Region<D> {
    disk: D,
    start: u64,
    size: u64,
}

impl<D: Disk> Region<D> {
    /// The part of `disk` from `start`, `size` bytes long; `None` when it does not lie on the disk.
    pub fn new(disk: D, start: u64, size: u64) -> Option<Self> {
        let end = start.checked_add(size)?;
        (end <= disk.size()).then_some(Self { disk, start, size })
    }

    fn place(&self, at: u64, length: usize) -> Option<u64> {
        let end = at.checked_add(u64::try_from(length).ok()?)?;
        (end <= self.size).then_some(())?;
        self.start.checked_add(at)
    }
}

impl<D: Disk> Disk for Region<D> {
    type Error = RegionError<D::Error>;

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        let place = self.place(at, buf.len()).ok_or(RegionError::OutOfBounds)?;
        self.disk.read(place, buf).map_err(RegionError::Disk)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Self::Error> {
        let place = self.place(at, data.len()).ok_or(RegionError::OutOfBounds)?;
        self.disk.write(place, data).map_err(RegionError::Disk)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.disk.flush().map_err(RegionError::Disk)
    }
}
