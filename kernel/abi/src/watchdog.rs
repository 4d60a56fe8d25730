//! Watchdog devices, from `linux/watchdog.h`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// An armed watchdog: from opening on, the machine resets unless it is petted in time.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    timeout_s: u32,
    boot_status: u32,
}

impl Watchdog {
    /// Opens, and thereby arms, a watchdog, and asks for a timeout. A device that refuses the wanted
    /// timeout keeps its own; [`Self::timeout_s`] is what it really is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn arm(path: &Path, wanted_s: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        let fd = file.as_raw_fd();
        let mut status: nix::libc::c_int = 0;
        let mut wanted = i32::try_from(wanted_s).unwrap_or(i32::MAX);
        let mut real: nix::libc::c_int = 0;
        // SAFETY: each call reads or writes one int at a pointer to a live int of ours. A driver
        // that has no boot status, or a fixed timeout, answers an error and leaves the int alone.
        let known = unsafe {
            let _ = raw::get_boot_status(fd, &raw mut status);
            let _ = raw::set_timeout(fd, &raw mut wanted);
            raw::get_timeout(fd, &raw mut real)
        };
        let timeout_s = match known {
            Ok(_) => u32::try_from(real).unwrap_or(wanted_s).max(1),
            // Nothing is known: assume the shortest that any driver here has.
            Err(_) => 10,
        };
        Ok(Self { file, timeout_s, boot_status: u32::try_from(status).unwrap_or(0) })
    }

    /// The timeout that the device really has, in seconds.
    #[must_use]
    pub fn timeout_s(&self) -> u32 {
        self.timeout_s
    }

    /// Why the machine booted, as `WDIOF_*` bits; 0 is unknown.
    #[must_use]
    pub fn boot_status(&self) -> u32 {
        self.boot_status
    }

    /// Pets it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pet(&mut self) -> io::Result<()> {
        self.file.write_all(b"\0")
    }
}

/// The raw calls, as `nix` makes them: each is `unsafe` and wrapped above.
#[allow(missing_docs)]
mod raw {
    nix::ioctl_read!(get_boot_status, b'W', 2, nix::libc::c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, nix::libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, nix::libc::c_int);
}
