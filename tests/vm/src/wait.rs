//! Waiting for something with a bound: the only place where the harness sleeps.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Pause between two questions to a machine: each costs it about a second of work.
const ASKING: Duration = Duration::from_secs(3);

/// Looks until `look` gives a value.
///
/// # Errors
/// `look` fails, or nothing came within `limit`; the message says what was waited for.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    every(PAUSE, what, limit, look)
}

/// As [`until`], with pauses that leave the machine that is asked its time.
///
/// # Errors
/// As [`until`].
pub fn asking<T>(
    what: &str,
    limit: Duration,
    look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    every(ASKING, what, limit, look)
}

/// Lets a moment pass that a scenario has drawn.
pub fn moment(length: Duration) {
    thread::sleep(length);
}

fn every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if begun.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(pause);
    }
}
