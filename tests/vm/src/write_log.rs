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
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::raw_copy;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLAG_FLUSH: u64 = 1;
const FLAG_FUA: u64 = 2;
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

/// One entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where on the disk, in bytes.
    pub at: u64,
    /// How much, in bytes.
    pub length: u64,
    /// What.
    pub kind: Kind,
}

/// What an entry did to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes written; they lie at `data_at` of the log. A `durable` one was on the medium when the
    /// guest was told so, without a flush.
    Write {
        /// Where in the log, in bytes.
        data_at: u64,
        /// Whether it needs no flush.
        durable: bool,
    },
    /// Every earlier write is on the medium.
    Flush,
    /// The content is not needed any more.
    Discard,
}

/// A log: its entries in order, up to the last flush.
#[derive(Debug)]
pub struct Log {
    file: File,
    entries: Vec<Entry>,
}

impl Log {
    /// Reads the entries of the log at `path`; their data stay in the file.
    ///
    /// # Errors
    /// It is not a log of `blklogwrites`, or cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let entries = parse(&file).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { file, entries })
    }

    /// The same log without what follows its last flush.
    #[must_use]
    pub fn up_to_a_flush(mut self) -> Self {
        let flush = self.entries.iter().rposition(|entry| entry.kind == Kind::Flush);
        self.entries.truncate(flush.map_or(0, |flush| flush + 1));
        self
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of the log from `at`, the data of a write.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    /// Writes the data of all entries onto `disk`.
    fn replay(&self, disk: &File) -> Result<Replayed> {
        let mut bytes = 0;
        let mut data = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let Kind::Write { data_at, .. } = entry.kind else { continue };
            data.resize(usize::try_from(entry.length).context("size of an entry")?, 0);
            self.read(data_at, &mut data)
                .with_context(|| format!("read data of entry {number}"))?;
            disk.write_all_at(&data, entry.at).with_context(|| format!("write at {}", entry.at))?;
            bytes += entry.length;
        }
        Ok(Replayed { entries: self.entries.len() as u64, bytes })
    }
}

/// Makes `out`, a raw disk: `base` with the flushed part of `log` applied.
///
/// # Errors
/// The log is not one of `blklogwrites`, or a file cannot be read or written.
pub fn flushed_disk(base: &Path, log: &Path, out: &Path) -> Result<Replayed> {
    raw_copy(base, out)?;
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(out)
        .with_context(|| format!("open {}", out.display()))?;
    Log::open(log)?.replay(&disk).with_context(|| format!("replay {}", log.display()))
}

fn parse(log: &File) -> Result<Vec<Entry>> {
    let mut head = [0; 512];
    log.read_exact_at(&mut head, 0).context("read the head")?;
    let (magic, version, count) = (le64(&head, 0), le64(&head, 8), le64(&head, 16));
    if magic != MAGIC || version != 1 {
        bail!("magic {magic:#x} version {version} is no write log");
    }
    let sector_size = le64(&head, 24) & 0xffff_ffff;
    if !(512..=4096).contains(&sector_size) {
        bail!("sector size {sector_size}");
    }
    let mut at = sector_size;
    let mut entries = Vec::new();
    for number in 0..count {
        let mut entry = [0; 32];
        log.read_exact_at(&mut entry, at).with_context(|| format!("read entry {number}"))?;
        let (sector, sectors, flags) = (le64(&entry, 0), le64(&entry, 8), le64(&entry, 16));
        let length = sectors.checked_mul(sector_size).context("size of an entry")?;
        at += sector_size;
        let place = sector.checked_mul(sector_size).context("place of an entry")?;
        let kind = if flags & FLAG_DISCARD != 0 {
            Kind::Discard
        } else if sectors > 0 {
            if length > ENTRY_BYTES_MAX {
                bail!("entry {number} holds {length} bytes");
            }
            let data_at = at;
            at += length;
            Kind::Write { data_at, durable: flags & FLAG_FUA != 0 }
        } else if flags & FLAG_FLUSH != 0 {
            Kind::Flush
        } else {
            bail!("entry {number} has no size and the flags {flags:#x}");
        };
        entries.push(Entry { at: place, length, kind });
    }
    Ok(entries)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    u64::from_le_bytes(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn log_of(name: &str, bytes: &[u8]) -> Result<Log> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let log = Log::open(&path);
        fs::remove_file(&path).unwrap();
        log
    }

    /// The head of a log of so many entries.
    pub(crate) fn head(entries: u64) -> Vec<u8> {
        let mut head = Vec::new();
        for word in [MAGIC, 1, entries, 512] {
            head.extend(word.to_le_bytes());
        }
        head.resize(512, 0);
        head
    }

    /// An entry as it lies in a log.
    pub(crate) fn entry(sector: u64, sectors: u64, flags: u64, data: &[u8]) -> Vec<u8> {
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
        let mut log = head(2);
        log.extend(entry(1, 1, 0, &[7; 512]));
        log.extend(entry(0, 0, 1, &[]));
        log.extend(entry(1, 1, 0, &[9; 512])); // after the last flush: lost
        let path = std::env::temp_dir().join(format!("write-log-{}", std::process::id()));
        let disk = File::create(&path).unwrap();
        let log = log_of("write-log-flushed", &log).unwrap();
        let done = log.replay(&disk).unwrap();
        assert_eq!(done, Replayed { entries: 2, bytes: 512 });
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(content.get(512..1024), Some([7; 512].as_slice()));
    }

    #[test]
    fn a_file_that_is_no_log_is_refused() {
        assert!(log_of("write-log-none", &[0; 1024]).is_err());
    }
}
