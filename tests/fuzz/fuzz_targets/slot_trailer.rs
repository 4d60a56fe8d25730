//! The slot's trailer: any bytes, then the same with a right checksum.
#![no_main]

use bascule_fuzz::with_checksum;
use libfuzzer_sys::fuzz_target;
use partition_layout::slot_image::{TRAILER_SIZE, Trailer};

fuzz_target!(|data: &[u8]| {
    let _ = Trailer::decode(data);
    let sealed = with_checksum(data, TRAILER_SIZE, b"BASCTRLR\x01\x00");
    if let Ok(trailer) = Trailer::decode(&sealed) {
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
    }
});
