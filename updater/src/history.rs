//! What happened to this machine's releases: one JSON line an event, on the state partition.
//!
//! Append-only and flushed; bounded; a torn last line costs itself. It survives reboots and
//! rollbacks, since both slots share it. Nothing is decided by it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::checkpoint::replace;

/// Entries kept when the file is cut back.
const KEEP: usize = 500;
/// Bytes at which the file is cut back to the newest entries.
const BYTES_MAX: u64 = 512 << 10;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Seconds since 1970; `None` when the clock was not set.
    pub at_s: Option<u64>,
    /// The boot in which it was written.
    pub boot_id: String,
    /// `armed`, `sealed`, `failed`, `confirmed`, `fell-back`, `rolled-back`, `paused`, `resumed`.
    pub event: String,
    /// Manifest digest; empty if there is none.
    pub digest: String,
    /// Release number.
    pub release: u64,
    /// Version for people.
    pub version: String,
    /// The slot concerned.
    pub slot: String,
    /// Whose fault: `release`, `state`, `disk`, `power`, `registry`; empty if nobody's.
    pub fault: String,
    /// Why, for people.
    pub reason: String,
}

/// The history file.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
}

impl History {
    /// The history in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> History {
        History { path: folder.join("history.jsonl") }
    }

    /// The entries, oldest first; what is no entry is passed over.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.path) {
            // Only the end of a file that something made larger than it can be.
            let length = file.metadata().map_or(0, |meta| meta.len());
            let from = length.saturating_sub(2 * BYTES_MAX);
            let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes));
            if read.is_err() {
                return Vec::new();
            }
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Adds an entry, durably.
    ///
    /// # Errors
    /// The state partition's; the earlier entries stay.
    pub fn add(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_string(entry).map_err(io::Error::other)?;
        line.push('\n');
        let length = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if length > BYTES_MAX {
            let mut entries = self.entries();
            entries.drain(..entries.len().saturating_sub(KEEP));
            let kept: Vec<String> =
                entries.iter().filter_map(|entry| serde_json::to_string(entry).ok()).collect();
            return replace(&self.path, format!("{}\n{line}", kept.join("\n")).as_bytes());
        }
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&self.path)?;
        if length > 0 && !ends_with_newline(&mut file)? {
            line.insert(0, '\n');
        }
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }
}

/// Whether the last line was written to its end; a cut may have torn it.
fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("history-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn entry(release: u64) -> Entry {
        Entry { event: "armed".into(), release, reason: "x".repeat(400), ..Entry::default() }
    }

    #[test]
    fn a_torn_line_costs_itself() {
        let folder = folder("torn");
        let history = History::new(&folder);
        history.add(&entry(1)).unwrap();
        history.add(&entry(2)).unwrap();
        let path = folder.join("history.jsonl");
        let length = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 10).unwrap();
        history.add(&entry(3)).unwrap();
        let releases: Vec<u64> = history.entries().iter().map(|entry| entry.release).collect();
        assert_eq!(releases, [1, 3]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn it_is_bounded_and_keeps_the_newest() {
        let folder = folder("bounded");
        let history = History::new(&folder);
        let many: String = (0..2000)
            .map(|release| serde_json::to_string(&entry(release)).unwrap() + "\n")
            .collect();
        std::fs::write(folder.join("history.jsonl"), many).unwrap();
        history.add(&entry(2000)).unwrap();
        let entries = history.entries();
        assert_eq!(entries.len(), KEEP + 1);
        assert_eq!(entries.last().map(|entry| entry.release), Some(2000));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
