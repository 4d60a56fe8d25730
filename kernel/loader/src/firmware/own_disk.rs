//! The disk this loader was started from, and no other.

use alloc::vec::Vec;
use core::ptr::NonNull;

use loader::device_path;
use uefi::proto::device_path::{DevicePath, FfiDevicePath};
use uefi::{Guid, Handle, boot, guid};
use uefi_raw::Status;
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;

use super::block::WholeDisk;
use super::table;

const DEVICE_PATH: Guid = guid!("09576e91-6d3f-11d2-8e39-00a0c969723b");

/// Where we came from.
pub struct OwnDisk {
    /// The partition our file lay on.
    pub volume: Handle,
    /// The disk's device path, with its end node.
    pub path: Vec<u8>,
    /// The disk.
    pub disk: WholeDisk,
}

/// Finds the disk above the partition that the running image was loaded from.
///
/// The way is the device path, never a search for a label: two cloned disks in one machine are
/// normal.
pub fn find() -> Result<OwnDisk, Status> {
    let volume = own_volume()?;
    let path = path_of(volume)?;
    // A volume that is no partition lies on no disk of ours.
    let disk_path = device_path::disk_of(&path).ok_or(Status::NOT_FOUND)?;
    let disk = WholeDisk::open(handle_at(&disk_path)?)?;
    Ok(OwnDisk { volume, path: disk_path, disk })
}

/// The device that our own file came from.
pub fn own_volume() -> Result<Handle, Status> {
    let image: NonNull<LoadedImageProtocol> =
        table::interface(boot::image_handle(), &LoadedImageProtocol::GUID)?;
    // SAFETY: the interface of our own image lives as long as we run; null is checked.
    unsafe { Handle::from_ptr(image.as_ref().device_handle) }.ok_or(Status::NOT_FOUND)
}

/// The bytes of the device path of `handle`.
fn path_of(handle: Handle) -> Result<Vec<u8>, Status> {
    let path: NonNull<FfiDevicePath> = table::interface(handle, &DEVICE_PATH)?;
    // SAFETY: the firmware's path of a handle ends with an end node.
    Ok(unsafe { DevicePath::from_ffi_ptr(path.as_ptr()) }.as_bytes().to_vec())
}

/// The handle whose device path is exactly `path` and that has the block protocol.
fn handle_at(path: &[u8]) -> Result<Handle, Status> {
    let boot = table::boot().ok_or(Status::UNSUPPORTED)?;
    let mut rest = path.as_ptr().cast();
    let mut handle = core::ptr::null_mut();
    // SAFETY: `path` was made by `disk_of` and ends with an end node; both places are ours.
    table::checked(unsafe {
        (boot.locate_device_path)(&BlockIoProtocol::GUID, &mut rest, &mut handle)
    })?;
    // A handle further up would be something else with blocks: `rest` must be the end node.
    let used = (rest as usize).saturating_sub(path.as_ptr() as usize);
    if path.get(used) != Some(&0x7f) {
        return Err(Status::NOT_FOUND);
    }
    // SAFETY: null is checked; the firmware gave the handle.
    unsafe { Handle::from_ptr(handle) }.ok_or(Status::NOT_FOUND)
}
