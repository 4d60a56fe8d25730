//! One file of the ESP that we came from: the recovery image.

use core::ptr::{self, NonNull};

use uefi::{CStr16, Handle};
use uefi_raw::Status;
use uefi_raw::protocol::file_system::{
    FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol,
};

use super::memory::Pages;
use super::{table, watchdog};

/// A file larger than this is no kernel image of ours; the limit keeps sizes in 32 bits.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Reads the file `name` of the file system on `volume`, in pieces through a low buffer.
pub fn read(volume: Handle, name: &CStr16) -> Result<Pages, Status> {
    let system: NonNull<SimpleFileSystemProtocol> =
        table::interface(volume, &SimpleFileSystemProtocol::GUID)?;
    let mut root = ptr::null_mut();
    // SAFETY: the interface lives while its driver is connected; `root` is ours.
    table::checked(unsafe { (system.as_ref().open_volume)(system.as_ptr(), &mut root) })?;
    let root = Open::new(root)?;
    let file = root.open(name)?;
    let size = file.size()?;
    if size == 0 || size > FILE_BYTES_MAX {
        return Err(Status::BAD_BUFFER_SIZE);
    }
    let length = usize::try_from(size).map_err(|_| Status::BAD_BUFFER_SIZE)?;
    let mut whole = Pages::anywhere(length).ok_or(Status::OUT_OF_RESOURCES)?;
    let mut transfer = Pages::for_transfer().ok_or(Status::OUT_OF_RESOURCES)?;
    for piece in whole.bytes_mut().chunks_mut(transfer.bytes().len()) {
        let from = transfer.bytes_mut().get_mut(..piece.len()).ok_or(Status::BAD_BUFFER_SIZE)?;
        file.fill(from)?;
        piece.copy_from_slice(from);
        watchdog::arm(watchdog::LOADING_S);
    }
    Ok(whole)
}

/// An open file or folder, closed when dropped.
struct Open(NonNull<FileProtocolV1>);

impl Open {
    fn new(file: *mut FileProtocolV1) -> Result<Self, Status> {
        NonNull::new(file).map(Self).ok_or(Status::NOT_FOUND)
    }

    fn open(&self, name: &CStr16) -> Result<Self, Status> {
        let mut file = ptr::null_mut();
        // SAFETY: an open folder; the name ends with a NUL; `file` is ours.
        table::checked(unsafe {
            (self.0.as_ref().open)(
                self.0.as_ptr(),
                &mut file,
                name.as_ptr().cast(),
                FileMode::READ,
                FileAttribute::empty(),
            )
        })?;
        Self::new(file)
    }

    fn size(&self) -> Result<u64, Status> {
        let mut size = 0;
        // SAFETY: an open file. The position of all ones means its end.
        unsafe {
            table::checked((self.0.as_ref().set_position)(self.0.as_ptr(), u64::MAX))?;
            table::checked((self.0.as_ref().get_position)(self.0.as_ptr(), &mut size))?;
            table::checked((self.0.as_ref().set_position)(self.0.as_ptr(), 0))?;
        }
        Ok(size)
    }

    fn fill(&self, into: &mut [u8]) -> Result<(), Status> {
        let mut bytes = into.len();
        // SAFETY: an open file; `into` has room for `bytes`.
        table::checked(unsafe {
            (self.0.as_ref().read)(self.0.as_ptr(), &mut bytes, into.as_mut_ptr().cast())
        })?;
        if bytes == into.len() { Ok(()) } else { Err(Status::END_OF_FILE) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: open, and never used again. Closing cannot fail.
        let _ = unsafe { (self.0.as_ref().close)(self.0.as_ptr()) };
    }
}
