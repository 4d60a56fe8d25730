//! Skips work whose inputs have not changed: a hash of all input bytes beside the output.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Gathers inputs; order matters.
#[derive(Default)]
pub struct Inputs {
    hasher: Sha256,
}

impl Inputs {
    /// Adds a word.
    pub fn word(mut self, word: &str) -> Self {
        self.hasher.update((word.len() as u64).to_le_bytes());
        self.hasher.update(word);
        self
    }

    /// Adds a file, or all files below a folder, names and contents.
    ///
    /// # Errors
    /// Something cannot be read. A path that does not exist counts as empty.
    pub fn path(mut self, path: &Path) -> Result<Self> {
        for file in files_below(path)? {
            let content =
                fs::read(&file).with_context(|| format!("read input {}", file.display()))?;
            let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
            self = self.word(&name);
            self.hasher.update((content.len() as u64).to_le_bytes());
            self.hasher.update(content);
        }
        Ok(self)
    }

    /// The hash, in hex.
    pub fn hash(self) -> String {
        self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether the output marked by the file `stamp` was made from inputs with this hash.
pub fn is_current(stamp: &Path, hash: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|kept| kept.trim() == hash)
}

/// Marks an output as made from inputs with this hash.
///
/// # Errors
/// The file cannot be written.
pub fn keep(stamp: &Path, hash: &str) -> Result<()> {
    fs::write(stamp, format!("{hash}\n")).with_context(|| format!("write {}", stamp.display()))
}

fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    let mut folders = if path.is_dir() { vec![path.to_path_buf()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", folder.display()))?.path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files.push(entry);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_border_between_words_changes_the_hash() {
        let one = Inputs::default().word("ab").word("c").hash();
        let two = Inputs::default().word("a").word("bc").hash();
        assert_ne!(one, two);
    }

    #[test]
    fn the_hash_follows_content_and_not_the_folders_place() {
        let base = std::env::temp_dir().join(format!("stamp-{}", std::process::id()));
        let make = |name: &str, content: &str| {
            let folder = base.join(name);
            fs::create_dir_all(folder.join("deep")).unwrap();
            fs::write(folder.join("deep/file"), content).unwrap();
            Inputs::default().path(&folder).unwrap().hash()
        };
        let (one, same, other) = (make("one", "x"), make("two", "x"), make("three", "y"));
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
}
