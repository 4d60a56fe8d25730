//! The firmware's own tables, as references that may be absent instead of pointers.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use uefi::{Guid, Handle};
use uefi_raw::Status;
use uefi_raw::table::boot::BootServices;
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;

/// The system table, while the firmware is in charge.
pub fn system() -> Option<&'static SystemTable> {
    let table = uefi::table::system_table_raw()?;
    // SAFETY: the entry point stored the pointer the firmware gave; the table lives until the
    // kernel ends the boot services, after which nothing of this program runs.
    Some(unsafe { table.as_ref() })
}

/// The boot services.
pub fn boot() -> Option<&'static BootServices> {
    // SAFETY: as for the system table, which holds a valid pointer or null.
    unsafe { system()?.boot_services.as_ref() }
}

/// The runtime services.
pub fn runtime() -> Option<&'static RuntimeServices> {
    // SAFETY: as for the boot services.
    unsafe { system()?.runtime_services.as_ref() }
}

/// The interface `guid` of `handle`, opened so that no driver is disconnected.
///
/// An *exclusive* open would stop the drivers of a disk. The pointer stays valid as long as
/// nothing disconnects the device, and this program never does.
pub fn interface<T>(handle: Handle, guid: &Guid) -> Result<NonNull<T>, Status> {
    let boot = boot().ok_or(Status::UNSUPPORTED)?;
    let mut found: *mut c_void = ptr::null_mut();
    // SAFETY: `found` is a place for one pointer, `guid` outlives the call.
    let status = unsafe { (boot.handle_protocol)(handle.as_ptr(), guid, &mut found) };
    checked(status)?;
    NonNull::new(found.cast()).ok_or(Status::UNSUPPORTED)
}

/// The first interface `guid` of any handle.
pub fn any_interface<T>(guid: &Guid) -> Result<NonNull<T>, Status> {
    let boot = boot().ok_or(Status::UNSUPPORTED)?;
    let mut found: *mut c_void = ptr::null_mut();
    // SAFETY: as above; no registration is asked for.
    let status = unsafe { (boot.locate_protocol)(guid, ptr::null(), &mut found) };
    checked(status)?;
    NonNull::new(found.cast()).ok_or(Status::UNSUPPORTED)
}

/// An error unless the firmware says success; warnings count as errors.
pub fn checked(status: Status) -> Result<(), Status> {
    if status == Status::SUCCESS { Ok(()) } else { Err(status) }
}
