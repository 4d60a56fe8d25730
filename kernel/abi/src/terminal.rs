//! Terminals, from `asm-generic/ioctls.h`.

use std::io;
use std::os::fd::AsRawFd as _;

/// Makes a terminal the controlling one of the calling session leader.
///
/// # Errors
/// The kernel's.
pub fn make_controlling(terminal: &impl std::os::fd::AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value; 0 does not steal the terminal from another session.
    unsafe { raw::set_controlling(terminal.as_fd().as_raw_fd(), 0) }?;
    Ok(())
}

/// The raw calls, as `nix` makes them: each is `unsafe` and wrapped above.
#[allow(missing_docs)]
mod raw {
    nix::ioctl_write_int_bad!(set_controlling, 0x540E);
}
