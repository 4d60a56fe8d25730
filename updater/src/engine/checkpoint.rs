//! How far the writing of a slot came, so that it goes on after a crash or a reboot.
//!
//! A file on the state partition: a first line that names slot and image, then one line for each
//! frame that was flushed to the slot, with the sha256 of the slot from its start to that frame's
//! end (so that nothing is hashed twice). The file is a hint and never trusted: on resume the frames
//! are read back from the slot and compared, and the whole slot is compared with the signed hash in
//! the end. A torn last line is passed over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use partition_layout::slot::Slot;
use partition_layout::verity::{hex, unhex};
use update_manifest::digest::Digest;

/// Largest file read, in bytes: 8192 frames at 65 bytes, and the first line.
const SIZE_MAX: u64 = 1 << 20;
const FORMAT: &str = "bascule-checkpoint-2";

/// Where a checkpoint is kept.
pub trait Keep {
    /// Its bytes; none when they cannot be read or are more than a checkpoint can have.
    fn read(&self) -> Vec<u8>;

    /// Replaces it, durably and in one step.
    ///
    /// # Errors
    /// The state partition's; it is then as it was, or absent.
    fn replace(&self, content: &[u8]) -> io::Result<()>;

    /// Adds to its end, durably.
    ///
    /// # Errors
    /// The state partition's; any part of `content` may have been added.
    fn append(&self, content: &[u8]) -> io::Result<()>;

    /// Removes it; a missing one is no error.
    fn remove(&self);
}

/// A file on the state partition.
#[derive(Debug)]
pub struct KeptFile(pub PathBuf);

impl Keep for KeptFile {
    fn read(&self) -> Vec<u8> {
        let small = std::fs::metadata(&self.0).is_ok_and(|meta| meta.len() <= SIZE_MAX);
        if small { std::fs::read(&self.0).unwrap_or_default() } else { Vec::new() }
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        replace(&self.0, content)
    }

    fn append(&self, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.0)?;
        file.write_all(content)?;
        file.sync_data()
    }

    fn remove(&self) {
        // It is a hint: one that stays names an image, and is compared before it is used.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The checkpoint of one image in one slot.
pub struct Checkpoint {
    kept: Box<dyn Keep + Send>,
    head: String,
}

impl Checkpoint {
    /// The checkpoint for `image` in `slot`. Touches nothing.
    #[must_use]
    pub fn new(kept: Box<dyn Keep + Send>, slot: Slot, image: Digest) -> Checkpoint {
        Checkpoint { kept, head: format!("{FORMAT} {} {image}", slot.word()) }
    }

    /// The hashes up to each frame written before; empty for another image, slot or none at all.
    #[must_use]
    pub fn frames(&self) -> Vec<[u8; 32]> {
        parse(&String::from_utf8_lossy(&self.kept.read()), &self.head)
    }

    /// Begins anew with `frames`, durably.
    ///
    /// # Errors
    /// The state partition's; the file is then as it was, or absent.
    pub fn begin(&self, frames: &[[u8; 32]]) -> io::Result<()> {
        let mut text = format!("{}\n", self.head);
        for frame in frames {
            text.push_str(&hex(frame));
            text.push('\n');
        }
        self.kept.replace(text.as_bytes())
    }

    /// Adds `frames`, which are on the medium already.
    ///
    /// # Errors
    /// The state partition's; the frames are then only written again after a crash.
    pub fn add(&self, frames: &[[u8; 32]]) -> io::Result<()> {
        let text: String = frames.iter().map(|frame| hex(frame) + "\n").collect();
        self.kept.append(text.as_bytes())
    }

    /// Removes it; a missing one is no error.
    pub fn clear(&self) {
        self.kept.remove();
    }
}

fn parse(text: &str, head: &str) -> Vec<[u8; 32]> {
    let mut lines = text.split_inclusive('\n');
    if lines.next().and_then(|line| line.strip_suffix('\n')) != Some(head) {
        return Vec::new();
    }
    lines.map_while(|line| unhex::<32>(line.strip_suffix('\n')?)).collect()
}

/// Replaces a file in one durable step: write beside it, flush, rename, flush the folder.
///
/// # Errors
/// The system's; the old content is then still there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_the_same_image_count() {
        let head = "head";
        let line = format!("{}\n", "ab".repeat(32));
        let check = |text: &str, count| assert_eq!(parse(text, head).len(), count, "{text:?}");
        check("", 0);
        check("head", 0);
        check("other\n", 0);
        check(&format!("head\n{line}{line}"), 2);
        check(&format!("head\n{line}{}", &line[..40]), 1);
        check(&format!("head\n{line}{}", line.trim()), 1);
        check(&format!("head\nzz\n{line}"), 0);
    }

    #[test]
    fn it_grows_and_begins_anew() {
        let folder = std::env::temp_dir().join(format!("checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let image = Digest([7; 32]);
        let kept = || Box::new(KeptFile(folder.join("progress")));
        let checkpoint = Checkpoint::new(kept(), Slot::B, image);
        assert!(checkpoint.frames().is_empty());
        checkpoint.begin(&[[1; 32]]).unwrap();
        checkpoint.add(&[[2; 32], [3; 32]]).unwrap();
        assert_eq!(checkpoint.frames(), [[1; 32], [2; 32], [3; 32]]);
        let other = Checkpoint::new(kept(), Slot::A, image);
        assert!(other.frames().is_empty());
        checkpoint.clear();
        assert!(checkpoint.frames().is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
