//! device-mapper by ioctl, from `linux/dm-ioctl.h`: as much as one verity device needs.
//!
//! Every call carries `struct dm_ioctl` (312 bytes: version 3 × u32, data size u32, data start u32,
//! target count u32, open count i32, flags u32, event number u32, 4 bytes of padding, device u64,
//! name 128, UUID 129, 7 bytes of padding) and, behind it, target specifications (sector start u64,
//! length u64, status i32, next u32, type 16, then the parameters as a string).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

const HEAD: usize = 312;
const BUFFER: usize = 16 * 1024;
const TARGET: usize = 40;
const NAME_AT: usize = 48;
const READ_ONLY: u32 = 1;
const STATUS_INFO: u32 = 0;

/// An open `/dev/mapper/control`.
#[derive(Debug)]
pub struct DeviceMapper {
    control: File,
}

type Call = unsafe fn(nix::libc::c_int, *mut [u8; HEAD]) -> nix::Result<nix::libc::c_int>;

impl DeviceMapper {
    /// Opens the control device.
    ///
    /// # Errors
    /// The system's; it is absent when the module is not loaded.
    pub fn open(control: &Path) -> io::Result<Self> {
        Ok(Self { control: OpenOptions::new().read(true).write(true).open(control)? })
    }

    /// Creates a read-only device with one target over `sectors` 512-byte sectors and activates it.
    /// Returns its device number as (major, minor).
    ///
    /// # Errors
    /// The kernel's; a device that could not be activated is removed again.
    pub fn create(
        &self,
        name: &str,
        sectors: u64,
        kind: &str,
        parameters: &str,
    ) -> io::Result<(u32, u32)> {
        let made = self.call(raw::create, name, 0, &[])?;
        let device = u64::from_ne_bytes(made[40..48].try_into().map_err(io::Error::other)?);
        let target = target(sectors, kind, parameters)?;
        let activated = self
            .call(raw::load, name, READ_ONLY, &target)
            .and_then(|_| self.call(raw::suspend, name, READ_ONLY, &[]));
        if let Err(error) = activated {
            // The first error is the one to tell.
            let _ = self.call(raw::remove, name, 0, &[]);
            return Err(error);
        }
        // The kernel's huge encoding of device numbers.
        let major = (device >> 8) & 0xfff;
        let minor = (device & 0xff) | ((device >> 12) & 0xfff_ff00);
        let fits = |number: u64| u32::try_from(number).map_err(io::Error::other);
        Ok((fits(major)?, fits(minor)?))
    }

    /// The status line of the first target; for verity `V` (good so far) or `C` (corruption seen).
    ///
    /// # Errors
    /// The kernel's.
    pub fn status(&self, name: &str) -> io::Result<String> {
        let buffer = self.call(raw::status, name, STATUS_INFO, &[])?;
        let start = u32::from_ne_bytes(buffer[16..20].try_into().map_err(io::Error::other)?);
        let text = buffer.get(start as usize + TARGET..).unwrap_or_default();
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    fn call(&self, call: Call, name: &str, flags: u32, targets: &[u8]) -> io::Result<Vec<u8>> {
        if name.len() >= 127 || HEAD + targets.len() > BUFFER {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "name or table too long"));
        }
        // u64s, so that the kernel's structure is aligned.
        let mut words = vec![0_u64; BUFFER / 8];
        let mut head = [0_u8; HEAD];
        let mut put =
            |at: usize, value: u32| head[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(0, 4);
        put(12, BUFFER as u32);
        put(16, HEAD as u32);
        put(20, u32::from(!targets.is_empty()));
        put(28, flags);
        head[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        let buffer = words.as_mut_ptr().cast::<u8>();
        // SAFETY: the buffer is BUFFER bytes long, aligned to 8, and lives to the end of this
        // function; head and targets together fit it (checked above). The kernel reads and writes
        // at most the data size in the head, which is BUFFER.
        let bytes = unsafe {
            std::ptr::copy_nonoverlapping(head.as_ptr(), buffer, HEAD);
            std::ptr::copy_nonoverlapping(targets.as_ptr(), buffer.add(HEAD), targets.len());
            call(self.control.as_raw_fd(), buffer.cast::<[u8; HEAD]>())?;
            std::slice::from_raw_parts(buffer, BUFFER).to_vec()
        };
        Ok(bytes)
    }
}

fn target(sectors: u64, kind: &str, parameters: &str) -> io::Result<Vec<u8>> {
    if kind.len() >= 16 || parameters.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "target type or parameters"));
    }
    let mut out = vec![0_u8; TARGET];
    out[8..16].copy_from_slice(&sectors.to_ne_bytes());
    out[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
    out.extend_from_slice(parameters.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(8), 0);
    let next = u32::try_from(out.len()).map_err(io::Error::other)?;
    out[20..24].copy_from_slice(&next.to_ne_bytes());
    Ok(out)
}

/// The raw calls, as `nix` makes them: each is `unsafe` and wrapped above.
#[allow(missing_docs)]
mod raw {
    use super::HEAD;

    nix::ioctl_readwrite!(create, 0xfd, 3, [u8; HEAD]);
    nix::ioctl_readwrite!(remove, 0xfd, 4, [u8; HEAD]);
    nix::ioctl_readwrite!(suspend, 0xfd, 6, [u8; HEAD]);
    nix::ioctl_readwrite!(load, 0xfd, 9, [u8; HEAD]);
    nix::ioctl_readwrite!(status, 0xfd, 12, [u8; HEAD]);
}
