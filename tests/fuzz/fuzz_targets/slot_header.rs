//! The slot's header: any bytes, then the same with a right checksum.
#![no_main]

use bascule_fuzz::with_checksum;
use libfuzzer_sys::fuzz_target;
use partition_layout::slot_image::{HEADER_SIZE, Header};

fuzz_target!(|data: &[u8]| {
    let _ = Header::decode(data);
    let sealed = with_checksum(data, HEADER_SIZE, b"BASCSLOT\x01\x00");
    if let Ok(header) = Header::decode(&sealed) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
});
