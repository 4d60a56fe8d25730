//! The verity table of the initrd.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partition_layout::verity::VerityTable;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(table) = VerityTable::decode(text) {
        assert_eq!(VerityTable::decode(&table.encode()), Some(table));
    }
});
