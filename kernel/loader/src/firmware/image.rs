//! Gives a kernel image to the firmware: load from memory, start, forget.

use core::ptr;

use uefi::{Handle, boot};
use uefi_raw::{Boolean, Status};

use super::table;

/// An image the firmware has accepted, with Secure Boot's checks done.
pub struct Loaded(Handle);

impl Loaded {
    /// Loads the image in `bytes` under the device path `path` (with its end node).
    ///
    /// The path names no file that anybody could read: it tells the stub which partition it came
    /// from. No load options are handed on; ours came from a boot entry that anybody may write.
    /// The firmware copies the image, so `bytes` may be given back afterwards.
    pub fn from_memory(bytes: &[u8], path: &[u8]) -> Result<Self, Status> {
        let services = table::boot().ok_or(Status::UNSUPPORTED)?;
        let mut raw = ptr::null_mut();
        // SAFETY: `path` ends with an end node, `bytes` is as long as said, `raw` is a place for
        // one handle, and our own handle is the parent.
        let status = unsafe {
            (services.load_image)(
                Boolean::FALSE,
                boot::image_handle().as_ptr(),
                path.as_ptr().cast(),
                bytes.as_ptr(),
                bytes.len(),
                &mut raw,
            )
        };
        // SAFETY: null is checked; a handle that is not null came from the firmware.
        let handle = unsafe { Handle::from_ptr(raw) };
        match (table::checked(status), handle) {
            (Ok(()), Some(handle)) => Ok(Self(handle)),
            (Ok(()), None) => Err(Status::LOAD_ERROR),
            (Err(status), handle) => {
                // A security violation leaves the image loaded, for a caller that would ask a
                // person. We never do.
                if let (Status::SECURITY_VIOLATION, Some(handle)) = (status, handle) {
                    unload(handle);
                }
                Err(status)
            }
        }
    }

    /// Starts the image. It comes back only when it did not start a kernel; its memory is then
    /// given back as far as the firmware lets us.
    pub fn start(self) -> Status {
        let Some(services) = table::boot() else {
            return Status::UNSUPPORTED;
        };
        let (mut size, mut data) = (0, ptr::null_mut());
        // SAFETY: a handle that `load_image` gave and that was not started; both places are ours.
        let status = unsafe { (services.start_image)(self.0.as_ptr(), &mut size, &mut data) };
        if !data.is_null() {
            // SAFETY: the exit data is from the pool and ours to free.
            let _ = unsafe { (services.free_pool)(data.cast()) };
        }
        unload(self.0);
        status
    }
}

/// An application that has returned is gone already; then there is nothing to unload.
fn unload(handle: Handle) {
    if let Some(services) = table::boot() {
        // SAFETY: the firmware checks the handle against its list of images.
        let _ = unsafe { (services.unload_image)(handle.as_ptr()) };
    }
}
