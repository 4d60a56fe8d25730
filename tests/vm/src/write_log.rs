//! What a disk holds after the strictest power cut: only what the guest had flushed.
//!
//! QEMU's `blklogwrites` keeps every write and flush in order. Replayed onto the disk as it was
//! at the start, up to the last flush, the log gives the disk that the cut left.
//!
//! | bytes of the log | meaning |
//! |---|---|
//! | sector 0 | le64 magic, le64 version 1, le64 entries, le32 sector size |
//! | then per entry | one sector: le64 sector, le64 sectors, le64 flags, le64 data length; data |
//!
//! The number of entries in sector 0 is that of the last flush, which is just what is wanted.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::qemu_img;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLAG_DISCARD: u64 = 4;
/// No entry of a 512-byte-sector virtio disk carries more.
const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Entries applied: writes, discards, flushes up to the last flush.
    pub entries: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Makes `out`, a raw disk: `base` with the flushed part of `log` applied.
///
/// # Errors
/// The log is not one of `blklogwrites`, or a file cannot be read or written.
pub fn flushed_disk(base: &Path, log: &Path, out: &Path) -> Result<Replayed> {
    let (from, to) = (base.display().to_string(), out.display().to_string());
    qemu_img(&["convert", "-O", "raw", "-S", "64k", &from, &to])?;
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(out)
        .with_context(|| format!("open {}", out.display()))?;
    let mut file = File::open(log).with_context(|| format!("open {}", log.display()))?;
    replay(&mut file, &disk).with_context(|| format!("replay {}", log.display()))
}

fn replay(log: &mut (impl Read + Seek), disk: &File) -> Result<Replayed> {
    let mut head = [0; 512];
    log.read_exact(&mut head).context("read the head")?;
    let (magic, version, entries) = (le64(&head, 0), le64(&head, 8), le64(&head, 16));
    if magic != MAGIC || version != 1 {
        bail!("magic {magic:#x} version {version} is no write log");
    }
    let sector_size = le64(&head, 24) & 0xffff_ffff;
    if !(512..=4096).contains(&sector_size) {
        bail!("sector size {sector_size}");
    }
    let mut at = sector_size;
    let mut bytes = 0;
    for number in 0..entries {
        log.seek(SeekFrom::Start(at)).context("seek")?;
        let mut entry = [0; 32];
        log.read_exact(&mut entry).with_context(|| format!("read entry {number}"))?;
        let (sector, sectors, flags) = (le64(&entry, 0), le64(&entry, 8), le64(&entry, 16));
        let length = sectors.checked_mul(sector_size).context("size of an entry")?;
        at += sector_size;
        let place = sector.checked_mul(sector_size).context("place of an entry")?;
        if flags & FLAG_DISCARD != 0 || sectors == 0 {
            continue;
        }
        if length > ENTRY_BYTES_MAX {
            bail!("entry {number} holds {length} bytes");
        }
        let mut data = vec![0; usize::try_from(length).context("size of an entry")?];
        log.seek(SeekFrom::Start(at)).context("seek")?;
        log.read_exact(&mut data).with_context(|| format!("read data of entry {number}"))?;
        disk.write_all_at(&data, place).with_context(|| format!("write at {place}"))?;
        at += length;
        bytes += length;
    }
    Ok(Replayed { entries, bytes })
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn entry(sector: u64, sectors: u64, flags: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [sector, sectors, flags, data.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(512, 0);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn only_what_was_flushed_is_replayed() {
        let mut log = Vec::new();
        for word in [MAGIC, 1, 2, 512] {
            log.extend(word.to_le_bytes());
        }
        log.resize(512, 0);
        log.extend(entry(1, 1, 0, &[7; 512]));
        log.extend(entry(0, 0, 1, &[]));
        log.extend(entry(1, 1, 0, &[9; 512])); // after the last flush: lost
        let path = std::env::temp_dir().join(format!("write-log-{}", std::process::id()));
        let disk = File::create(&path).unwrap();
        let done = replay(&mut Cursor::new(log), &disk).unwrap();
        assert_eq!(done, Replayed { entries: 2, bytes: 512 });
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(content.get(512..1024), Some([7; 512].as_slice()));
    }

    #[test]
    fn a_file_that_is_no_log_is_refused() {
        let disk = File::open("/dev/null").unwrap();
        assert!(replay(&mut Cursor::new(vec![0; 1024]), &disk).is_err());
    }
}
