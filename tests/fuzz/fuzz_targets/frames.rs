//! The frame table's annotation, and base64.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partition_layout::frames::{FRAME_SIZE, FrameTable, base64_decode, base64_encode};

fuzz_target!(|data: &[u8]| {
    assert_eq!(base64_decode(&base64_encode(data)).as_deref(), Some(data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(bytes) = base64_decode(text) {
        assert_eq!(base64_encode(&bytes), text, "one text for one value");
    }
    let slot_size = (text.len() as u64 / 4) * FRAME_SIZE;
    if let Ok(table) = FrameTable::decode(60, text, 20, slot_size) {
        assert_eq!(table.encode_slot(), text);
        assert!(table.offset(table.slot.len()).is_some());
        assert_eq!(table.offset(table.slot.len() + 1), None);
    }
});
