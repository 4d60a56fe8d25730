//! Publishes what os-init must know, in a variable that the next reset forgets.

use alloc::vec::Vec;

use partition_layout::boot_variable::{BootVariable, NAME};
use partition_layout::guid;
use uefi::Guid;
use uefi_raw::Status;
use uefi_raw::table::runtime::VariableAttributes;

use super::table;

/// Sets the variable; an older one of this boot is replaced.
///
/// Never non-volatile: it would outlive the boot it speaks of, and wear the flash.
pub fn publish(content: &BootVariable) -> Result<(), Status> {
    let runtime = table::runtime().ok_or(Status::UNSUPPORTED)?;
    let name: Vec<u16> = NAME.encode_utf16().chain(core::iter::once(0)).collect();
    let vendor = Guid::from_bytes(guid::VENDOR.0);
    let bytes = content.encode();
    let attributes = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    // SAFETY: the name ends with a NUL, `bytes` is as long as said, both outlive the call.
    table::checked(unsafe {
        (runtime.set_variable)(
            name.as_ptr().cast(),
            &vendor,
            attributes,
            bytes.len(),
            bytes.as_ptr(),
        )
    })
}
