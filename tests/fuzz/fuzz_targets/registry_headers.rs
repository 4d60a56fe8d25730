//! Header values that a registry, or whatever answers in its place, may send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use updater::registry::headers::{challenge, content_range, next_link, retry_after};

/// The longest wait that a header is believed, in seconds.
const DAY_S: u64 = 86_400;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(range) = content_range(text) {
        assert!(range.first <= range.last);
        assert!(range.total.is_none_or(|total| range.last < total));
    }
    assert!(retry_after(text).is_none_or(|wait| wait.as_secs() <= DAY_S));
    assert!(next_link(text).is_none_or(|target| text.contains(target)));
    let _ = challenge(text);
});
