//! Compressing frames: on all cores, and the same content only once.
//!
//! A release differs from the one before in few of its frames. Compressed frames are kept by what
//! they hold, so that the next build takes over what did not change. The kept bytes are those that
//! compressing again would give: an image's digest does not depend on the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};
use partition_layout::verity::hex;
use sha2::{Digest, Sha256};

/// Frames that are kept in all, in bytes; the least recently used go first.
const KEPT: u64 = 1 << 30;

/// Compresses blocks to zstd frames of their own, each with its size and a checksum in it.
#[derive(Debug, Clone)]
pub struct Compressor {
    level: i32,
    folder: Option<PathBuf>,
}

impl Compressor {
    /// One for `level` that keeps frames below the folder `cache`, or keeps none.
    ///
    /// # Errors
    /// zstd has no such level, or the folder cannot be made.
    pub fn new(level: i32, cache: Option<&Path>) -> Result<Self> {
        let known = zstd::compression_level_range();
        ensure!(known.contains(&level), "zstd level {level} is not in {known:?}");
        // Another version of zstd may compress the same block to other bytes.
        let name = format!("zstd-{}-level-{level}", zstd::zstd_safe::version_number());
        let folder = cache.map(|cache| cache.join("frames").join(name));
        if let Some(folder) = &folder {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(Self { level, folder })
    }

    /// The frames of `blocks`, in their order.
    ///
    /// # Errors
    /// zstd fails.
    pub fn frames(&self, blocks: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let share = blocks.len().div_ceil(cores()).max(1);
        thread::scope(|scope| {
            let parts: Vec<_> = blocks
                .chunks(share)
                .map(|part| {
                    scope.spawn(|| {
                        part.iter().map(|block| self.frame(block)).collect::<Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut frames = Vec::new();
            for part in parts {
                frames.extend(part.join().map_err(|_| anyhow!("a compressing thread died"))??);
            }
            Ok(frames)
        })
    }

    /// The frame of one block.
    ///
    /// # Errors
    /// zstd fails.
    pub fn frame(&self, block: &[u8]) -> Result<Vec<u8>> {
        let kept = self.folder.as_ref().map(|folder| folder.join(hex(&Sha256::digest(block))));
        if let Some(frame) = kept.as_deref().and_then(|path| read_kept(path, block)) {
            return Ok(frame);
        }
        let mut compressor = zstd::bulk::Compressor::new(self.level).context("start zstd")?;
        compressor.include_checksum(true).context("set up zstd")?;
        compressor.include_contentsize(true).context("set up zstd")?;
        let frame = compressor.compress(block).context("compress a frame")?;
        if let Some(path) = kept {
            keep(&path, &frame)?;
        }
        Ok(frame)
    }

    /// Removes the frames that were not used for longest, as far as there are too many.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn tidy(&self) -> Result<()> {
        self.folder.as_deref().map_or(Ok(()), |folder| tidy(folder, KEPT))
    }
}

/// How many blocks are worth handing over at a time.
#[must_use]
pub fn batch() -> usize {
    4 * cores()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The kept frame, if it still unpacks to `block`: a damaged cache costs time, never an image.
fn read_kept(path: &Path, block: &[u8]) -> Option<Vec<u8>> {
    let frame = fs::read(path).ok()?;
    let is_whole = zstd::bulk::decompress(&frame, block.len()).is_ok_and(|plain| plain == block);
    if !is_whole {
        return None;
    }
    // Used now: tidying goes by this time. A cache that is read-only serves all the same.
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
    Some(frame)
}

fn keep(path: &Path, frame: &[u8]) -> Result<()> {
    // Several builds may share the cache: under its name only when whole.
    let id = thread::current().id();
    let part = path.with_extension(format!("{}-{id:?}.part", std::process::id()));
    fs::write(&part, frame)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("keep a compressed frame as {}", path.display()))
}

fn tidy(folder: &Path, limit: u64) -> Result<()> {
    let says = || format!("list the kept frames in {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(says)? {
        let entry = entry.with_context(says)?;
        // Another build may remove it first.
        if let Ok(meta) = entry.metadata() {
            let used = meta.modified().with_context(says)?;
            files.push((used, entry.path(), meta.len()));
        }
    }
    files.sort();
    let mut sum: u64 = files.iter().map(|(_, _, size)| size).sum();
    for (_, path, size) in files {
        if sum <= limit {
            break;
        }
        let _ = fs::remove_file(path);
        sum -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("frames-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn blocks() -> Vec<Vec<u8>> {
        (0..37_u32).map(|seed| (0..9000).map(|at| (at * seed / 7) as u8).collect()).collect()
    }

    fn kept(cache: &Path) -> Vec<PathBuf> {
        let folder = fs::read_dir(cache.join("frames")).unwrap().next().unwrap().unwrap().path();
        let mut paths: Vec<_> =
            fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
        paths.sort();
        paths
    }

    #[test]
    fn the_cache_changes_no_byte() {
        let cache = folder("same");
        let without = Compressor::new(7, None).unwrap().frames(&blocks()).unwrap();
        let with = Compressor::new(7, Some(&cache)).unwrap();
        assert_eq!(with.frames(&blocks()).unwrap(), without);
        assert_eq!(kept(&cache).len(), 37);
        assert_eq!(with.frames(&blocks()).unwrap(), without);
        for (block, frame) in blocks().iter().zip(&without) {
            assert_eq!(&zstd::bulk::decompress(frame, 9000).unwrap(), block);
        }
        fs::remove_dir_all(&cache).unwrap();
    }

    #[test]
    fn a_kept_frame_is_taken_and_a_damaged_one_is_not() {
        let cache = folder("damaged");
        let compressor = Compressor::new(3, Some(&cache)).unwrap();
        let block = vec![5; 4000];
        let frame = compressor.frame(&block).unwrap();
        let path = kept(&cache).remove(0);
        // Other bytes that unpack to the same block: they can only come from the cache.
        let other = zstd::bulk::compress(&block, 1).unwrap();
        assert_ne!(other, frame);
        fs::write(&path, &other).unwrap();
        assert_eq!(compressor.frame(&block).unwrap(), other);
        for damaged in [&b""[..], b"no frame", &zstd::bulk::compress(&[6; 4000], 3).unwrap()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(compressor.frame(&block).unwrap(), frame);
            assert_eq!(fs::read(&path).unwrap(), frame, "the damaged one is replaced");
        }
        fs::remove_dir_all(&cache).unwrap();
    }

    #[test]
    fn what_was_used_last_stays() {
        let folder = folder("tidy");
        for (name, age) in [("old", 300), ("new", 100), ("middle", 200)] {
            fs::write(folder.join(name), [0; 100]).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 - age);
            File::options()
                .append(true)
                .open(folder.join(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        tidy(&folder, 250).unwrap();
        let left = |name: &str| folder.join(name).exists();
        assert_eq!([left("old"), left("middle"), left("new")], [false, true, true]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
