//! The SMBIOS table: blanking never moves a structure and never leaves one string.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::smbios::{ENTRY_32_BYTES, ENTRY_64_BYTES, blank_oem_strings, place_32, place_64};

fuzz_target!(|data: &[u8]| {
    let mut once = data.to_vec();
    let count = blank_oem_strings(&mut once);
    assert_eq!(once.len(), data.len());
    for (after, before) in once.iter().zip(data) {
        // Only bytes of strings change, and only to spaces.
        assert!(after == before || (*after == b' ' && *before != 0));
    }
    let mut twice = once.clone();
    assert_eq!(blank_oem_strings(&mut twice), count);
    assert_eq!(twice, once);
    if let Some(point) = data.first_chunk::<ENTRY_32_BYTES>() {
        assert!(place_32(point).is_none_or(|place| place.address != 0 && place.length != 0));
    }
    if let Some(point) = data.first_chunk::<ENTRY_64_BYTES>() {
        assert!(place_64(point).is_none_or(|place| place.address != 0 && place.length != 0));
    }
});
