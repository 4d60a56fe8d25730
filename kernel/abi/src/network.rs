//! The loopback interface, from `linux/if.h` and `linux/sockios.h`.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const UP: i16 = 1;

/// Brings the loopback interface up; the kernel gives it its addresses.
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let mut request = InterfaceRequest { name: [0; 16], flags: UP, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: SIOCSIFFLAGS reads a struct ifreq of 40 bytes, which is what this structure is.
    unsafe { raw::set_flags(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// The raw calls, as `nix` makes them: each is `unsafe` and wrapped above.
#[allow(missing_docs)]
mod raw {
    use super::InterfaceRequest;

    nix::ioctl_write_ptr_bad!(set_flags, 0x8914, InterfaceRequest);
}
