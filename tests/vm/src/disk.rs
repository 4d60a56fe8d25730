//! Reading and damaging the disk of a machine that is off.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

use anyhow::{Context, Result, bail, ensure};
use partition_layout::places::{PLACES, STRIDE};
use partition_layout::record::Record;
use serde_json::Value;

use crate::machine::qemu_img;

/// A part of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length.
    pub size: u64,
}

/// Where things lie, as PID 1 wrote it down in boot.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// The record partition.
    pub record: Extent,
    /// Slot A.
    pub slot_a: Extent,
    /// Slot B.
    pub slot_b: Extent,
}

impl Places {
    /// Reads the places out of boot.json.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn of(facts: &Value) -> Result<Self> {
        let extent = |pointer: &str| {
            let number = |name: &str| facts.pointer(pointer)?.get(name)?.as_u64();
            match (number("offset"), number("size")) {
                (Some(offset), Some(size)) => Ok(Extent { offset, size }),
                _ => bail!("boot.json has no {pointer}: {facts}"),
            }
        };
        Ok(Self {
            record: extent("/record")?,
            slot_a: extent("/slots/a")?,
            slot_b: extent("/slots/b")?,
        })
    }
}

/// Fills `extent` of the qcow2 disk with the byte `pattern`.
///
/// # Errors
/// qemu-io fails.
pub fn fill(disk: &Path, extent: Extent, pattern: u8) -> Result<()> {
    let command = format!("write -q -P {pattern} {} {}", extent.offset, extent.size);
    let output = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", &command])
        .arg(disk)
        .output()
        .context("start qemu-io (package qemu-utils)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !said.contains("failed"),
        "qemu-io {command}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Where on the disk the newest record lies, in bytes; `record` is the record partition.
///
/// # Errors
/// None is valid, or as [`read`].
pub fn newest_record(disk: &Path, record: Extent) -> Result<u64> {
    let mut found = None;
    for place in (1..).take(PLACES) {
        let offset = record.offset + place * STRIDE;
        let bytes = read(disk, Extent { offset, size: 512 })?;
        found = found.max(Record::decode(&bytes).ok().map(|it| (it.generation, offset)));
    }
    found.map(|(_, offset)| offset).context("no valid record on the disk")
}

/// The bytes of `extent`, whose ends must be multiples of 512.
///
/// # Errors
/// qemu-img fails.
pub fn read(disk: &Path, extent: Extent) -> Result<Vec<u8>> {
    static READS: AtomicU64 = AtomicU64::new(0);
    let number = READS.fetch_add(1, Ordering::Relaxed);
    let out = env::temp_dir().join(format!("bascule-read-{}-{number}", process::id()));
    // A request of qemu-img is one block: small ones are slow.
    let whole = |size: u64| extent.offset.is_multiple_of(size) && extent.size.is_multiple_of(size);
    let block = if whole(1 << 20) { 1 << 20 } else { 512 };
    let (from, to) = (format!("if={}", disk.display()), format!("of={}", out.display()));
    let (size, skip) = (format!("bs={block}"), format!("skip={}", extent.offset / block));
    // qemu-img's count is of the input from its beginning, the skipped part included.
    let count = format!("count={}", (extent.offset + extent.size) / block);
    qemu_img(&["dd", "-f", "qcow2", "-O", "raw", &size, &skip, &count, &from, &to])?;
    let bytes = fs::read(&out).with_context(|| format!("read {}", out.display()))?;
    fs::remove_file(&out).with_context(|| format!("remove {}", out.display()))?;
    ensure!(bytes.len() as u64 == extent.size, "qemu-img gave {} bytes", bytes.len());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_read_back() {
        let disk = std::env::temp_dir().join(format!("disk-{}.qcow2", std::process::id()));
        qemu_img(&["create", "-q", "-f", "qcow2", &disk.display().to_string(), "1M"]).unwrap();
        fill(&disk, Extent { offset: 8192, size: 4096 }, 7).unwrap();
        let bytes = read(&disk, Extent { offset: 4096, size: 12288 }).unwrap();
        fs::remove_file(&disk).unwrap();
        assert_eq!(bytes.get(..4096), Some([0; 4096].as_slice()));
        assert_eq!(bytes.get(4096..8192), Some([7; 4096].as_slice()));
        assert_eq!(bytes.get(8192..), Some([0; 4096].as_slice()));
    }
}
