//! Device names and module patterns: never a panic, never slow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_init::hardware::{Modules, matches};

fuzz_target!(|data: &[u8]| {
    let (pattern, text) = data.split_at(data.len() / 2);
    let _ = matches(pattern, text);
    let (pattern, text) = (String::from_utf8_lossy(pattern), String::from_utf8_lossy(text));
    let _ = Modules::parse(&pattern, &text);
});
