//! The hardware watchdog, petted at a quarter of the time that it really has.
//!
//! Armed in the initrd as soon as its driver is there, since the driver's probe disarms what the
//! loader armed. It is closed at the change of root without the magic byte, so it runs on, and PID 1
//! opens it again.

use crate::console::{say, warn};
use kernel_abi::watchdog::Watchdog;
use std::path::Path;
use std::time::{Duration, Instant};

/// The timeout that the watchdog is asked for, in seconds: longer than the slowest honest pause of
/// PID 1's loop by far, short enough that a hung machine is back within two minutes.
const WANTED_S: u32 = 60;
const DEVICE: &str = "/dev/watchdog0";

/// The watchdog, where the machine has one.
#[derive(Debug, Default)]
pub struct Petted {
    watchdog: Option<Watchdog>,
    last: Option<Instant>,
}

impl Petted {
    /// Arms the watchdog, unless that is done already or there is none (yet).
    pub fn arm(&mut self) {
        if self.watchdog.is_some() || !Path::new(DEVICE).exists() {
            return;
        }
        match Watchdog::arm(Path::new(DEVICE), WANTED_S) {
            Ok(watchdog) => self.watchdog = Some(watchdog),
            Err(error) => warn(&format!("arm the watchdog: {error}")),
        }
        self.pet();
    }

    /// Tells which watchdog there is.
    pub fn tell(&self) {
        match &self.watchdog {
            Some(watchdog) => say(&format!(
                "watchdog armed: {} s, boot status {}",
                watchdog.timeout_s(),
                watchdog.boot_status()
            )),
            None => say("this machine has no watchdog that the kernel knows"),
        }
    }

    /// Pets it when a quarter of its time has gone by.
    pub fn pet(&mut self) {
        let Some(watchdog) = &mut self.watchdog else { return };
        let quarter = Duration::from_millis(u64::from(watchdog.timeout_s()) * 250);
        if self.last.is_none_or(|last| last.elapsed() >= quarter) {
            // An error here is answered by the watchdog itself.
            let _ = watchdog.pet();
            self.last = Some(Instant::now());
        }
    }

    /// Why the machine booted, as the watchdog says; 0 is unknown.
    #[must_use]
    pub fn boot_status(&self) -> u32 {
        self.watchdog.as_ref().map_or(0, Watchdog::boot_status)
    }
}
