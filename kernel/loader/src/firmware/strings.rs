//! Finds the SMBIOS tables in memory and blanks the strings a stub would read from them.

use core::slice;

use loader::smbios::{self, ENTRY_32_BYTES, ENTRY_64_BYTES, Place};
use uefi::{Guid, guid};

use super::table;

const SMBIOS: Guid = guid!("eb9d2d31-2d88-11d3-9a16-0090273fc14d");
const SMBIOS_3: Guid = guid!("f2fd1544-9794-4a2c-992e-e5bbcf20e394");

/// Blanks the OEM strings of each SMBIOS table. Returns how many strings there were.
pub fn blank() -> usize {
    let Some(system) = table::system() else {
        return 0;
    };
    if system.configuration_table.is_null() {
        return 0;
    }
    // SAFETY: the firmware's list, with its own count.
    let tables = unsafe {
        slice::from_raw_parts(
            system.configuration_table,
            system.number_of_configuration_table_entries,
        )
    };
    let mut blanked = 0;
    for entry in tables.iter().filter(|entry| !entry.vendor_table.is_null()) {
        let point = entry.vendor_table;
        let place = match entry.vendor_guid {
            // SAFETY: an entry point of this kind is at least so long.
            SMBIOS => smbios::place_32(unsafe { &*point.cast::<[u8; ENTRY_32_BYTES]>() }),
            // SAFETY: the same for its kind.
            SMBIOS_3 => smbios::place_64(unsafe { &*point.cast::<[u8; ENTRY_64_BYTES]>() }),
            _ => None,
        };
        blanked += place.map_or(0, blank_at);
    }
    blanked
}

fn blank_at(place: Place) -> usize {
    let Ok(address) = usize::try_from(place.address) else {
        return 0;
    };
    // SAFETY: the firmware says that a table of this length lies there, in memory that it keeps
    // for the kernel to read. Nothing else runs, so nothing else refers to it.
    let table = unsafe { slice::from_raw_parts_mut(address as *mut u8, place.length) };
    smbios::blank_oem_strings(table)
}
