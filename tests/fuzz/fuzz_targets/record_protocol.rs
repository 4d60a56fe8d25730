//! Text from outside: never a panic, whatever it says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (
        os_init::record::protocol::Request::decode(text),
        os_init::record::protocol::Answer::decode(text),
    );
});
