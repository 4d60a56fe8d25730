//! The boot record and the identity block: any bytes, then the same with a right checksum.
#![no_main]

use bascule_fuzz::with_checksum;
use libfuzzer_sys::fuzz_target;
use partition_layout::places;
use partition_layout::record::{RECORD_SIZE, Record};

fuzz_target!(|data: &[u8]| {
    let _ = Record::decode(data);
    let _ = places::decode_identity(data);
    let _ = places::decode_identity(&with_checksum(data, 512, b"BASCDSK1"));
    let sealed = with_checksum(data, RECORD_SIZE, b"BASCREC1\x01\x00\x00\x02");
    let Ok(record) = Record::decode(&sealed) else { return };
    let encoded = record.encode();
    let again = Record::decode(&encoded).expect("what was read can be written and read");
    assert_eq!(again.encode(), encoded);
    // The bytes of later versions come through.
    assert_eq!(encoded[312..], sealed[312..]);
});
