//! Folders that are made once and kept over test runs, as long as what they were made from is the
//! same: [`crate::template`] and [`crate::stopped`].

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::artifacts;

/// The folder `name` of `kind`, filled by `make` unless it was, with the same `key`. Whoever comes
/// meanwhile, of any thread or process, waits.
///
/// # Errors
/// A file cannot be written, or `make` fails: then nothing is kept.
pub fn folder(
    kind: &str,
    name: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let root = artifacts::work_dir().join(kind);
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let lock_path = root.join(format!("{name}.lock"));
    let lock =
        File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;

    let dir = root.join(name);
    if fs::read_to_string(dir.join("key")).is_ok_and(|kept| kept == key) {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    make(&dir)?;
    fs::write(dir.join("key"), key).with_context(|| format!("keep {}", dir.display()))?;
    Ok(dir)
}

/// A key that differs when one of `files`, or `more`, does.
///
/// # Errors
/// A file is not there.
pub fn key(files: &[&Path], more: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for path in files {
        let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        (meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
    }
    more.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_for_each_key_and_not_kept_half_made() {
        let name = format!("kept-{}", std::process::id());
        let made = |key: &str, text: &str| {
            let dir = folder("kept-test", &name, key, |dir| Ok(fs::write(dir.join("it"), text)?));
            fs::read_to_string(dir.unwrap().join("it")).unwrap()
        };
        assert_eq!(made("one", "first"), "first");
        assert_eq!(made("one", "second"), "first");
        assert_eq!(made("two", "third"), "third");
        let failed = folder("kept-test", &name, "four", |dir| {
            fs::write(dir.join("it"), "half")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        assert_eq!(made("four", "fourth"), "fourth");
        fs::remove_dir_all(artifacts::work_dir().join("kept-test")).unwrap();
    }

    #[test]
    fn the_key_follows_the_files() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (one, other) = (here.join("Cargo.toml"), here.join("src/kept.rs"));
        assert_eq!(key(&[&one], "").unwrap(), key(&[&one], "").unwrap());
        assert_ne!(key(&[&one], "").unwrap(), key(&[&other], "").unwrap());
        assert_ne!(key(&[&one], "").unwrap(), key(&[&one], "more").unwrap());
        assert!(key(&[Path::new("/nowhere")], "").is_err());
    }
}
