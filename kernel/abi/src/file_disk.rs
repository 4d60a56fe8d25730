//! A block device or an image file as a [`Disk`], past the page cache.

use crate::block;
use partition_layout::disk::Disk;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Alignment of buffers for `O_DIRECT`, in bytes: enough for every logical sector size.
const ALIGNMENT: usize = 4096;
/// The most that one call transfers, in bytes: bounds the memory of the bounce buffer.
const CHUNK: usize = 1024 * 1024;

/// A disk that reads from the medium and not from a cache: `O_DIRECT` where the file system has it,
/// else the range is written back and dropped from the cache before each read.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
    sector_size: u32,
    direct: bool,
    bounce: Vec<u8>,
}

impl FileDisk {
    /// Opens a device or an image file.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, write: bool) -> io::Result<Self> {
        let open =
            |flags| OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
        // tmpfs has no O_DIRECT and says EINVAL.
        let (mut file, direct) = match open(nix::libc::O_DIRECT | nix::libc::O_CLOEXEC) {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
                (open(nix::libc::O_CLOEXEC)?, false)
            }
            Err(error) => return Err(error),
        };
        let size = file.seek(SeekFrom::End(0))?;
        let sector_size = block::sector_size(&file)?;
        Ok(Self { file, size, sector_size, direct, bounce: vec![0; CHUNK + ALIGNMENT] })
    }

    /// An image file with sectors of another size, for builders and tests.
    ///
    /// # Errors
    /// The system's.
    pub fn open_image(path: &Path, write: bool, sector_size: u32) -> io::Result<Self> {
        Ok(Self { sector_size, ..Self::open(path, write)? })
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn check(&self, at: u64, length: usize) -> io::Result<()> {
        let sector = u64::from(self.sector_size);
        let length = length as u64;
        let end = at.checked_add(length).ok_or_else(|| io::Error::other("offset overflow"))?;
        if !at.is_multiple_of(sector) || !length.is_multiple_of(sector) || end > self.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{length} bytes at {at}: not whole sectors of {sector} within {}",
                    self.size
                ),
            ));
        }
        Ok(())
    }

    /// The part of the bounce buffer that is aligned for `O_DIRECT`.
    fn aligned(bounce: &mut [u8], length: usize) -> &mut [u8] {
        let skip = bounce.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        &mut bounce[skip..skip + length]
    }

    fn drop_cache(&self, at: u64, length: usize) -> io::Result<()> {
        self.file.sync_data()?;
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        let length = i64::try_from(length).map_err(io::Error::other)?;
        nix::fcntl::posix_fadvise(
            &self.file,
            offset,
            length,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )?;
        Ok(())
    }
}

impl Disk for FileDisk {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(at, buf.len())?;
        if !self.direct {
            self.drop_cache(at, buf.len())?;
            return self.file.read_exact_at(buf, at);
        }
        for (part, place) in buf.chunks_mut(CHUNK).zip((at..).step_by(CHUNK)) {
            let aligned = Self::aligned(&mut self.bounce, part.len());
            self.file.read_exact_at(aligned, place)?;
            part.copy_from_slice(aligned);
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.check(at, data.len())?;
        if !self.direct {
            return self.file.write_all_at(data, at);
        }
        for (part, place) in data.chunks(CHUNK).zip((at..).step_by(CHUNK)) {
            let aligned = Self::aligned(&mut self.bounce, part.len());
            aligned.copy_from_slice(part);
            self.file.write_all_at(aligned, place)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_bounds_hold() {
        let path = std::env::temp_dir().join(format!("file-disk-{}", std::process::id()));
        File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let mut disk = FileDisk::open(&path, true).unwrap();
        let data: Vec<u8> = (0..3_000_320_u32).map(|n| n.to_le_bytes()[0]).collect();
        let data = &data[..512 * 5859];
        disk.write(512, data).unwrap();
        disk.flush().unwrap();
        let mut read = vec![0; data.len()];
        disk.read(512, &mut read).unwrap();
        assert_eq!(read, data);
        assert!(disk.read(1, &mut [0; 512]).is_err());
        assert!(disk.write(4 << 20, &[0; 512]).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
