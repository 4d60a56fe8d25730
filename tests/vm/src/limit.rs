//! No more than three machines for each processor at a time, over all test threads and processes of
//! this clone.
//!
//! A machine computes for half of its boot and waits for its health gate during the other half; those
//! that were started together also wait together. Three of them fill a processor.

use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts;

/// How many machines run at a time.
pub fn places() -> usize {
    3 * thread::available_parallelism().map_or(1, usize::from)
}

const PAUSE: Duration = Duration::from_millis(300);

/// The right to run one machine; given back when dropped or when the process dies.
pub struct Place {
    _lock: File,
}

/// Waits for a free place, as long as it takes.
///
/// # Errors
/// The lock files cannot be made.
pub fn enter() -> Result<Place> {
    let dir = artifacts::work_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    loop {
        for number in 0..places() {
            let path = dir.join(format!("place-{number}.lock"));
            let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            if file.try_lock().is_ok() {
                return Ok(Place { _lock: file });
            }
        }
        thread::sleep(PAUSE);
    }
}
