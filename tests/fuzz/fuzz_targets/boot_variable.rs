//! The loader's variable: any bytes, and any list behind its magic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partition_layout::boot_variable::BootVariable;

fuzz_target!(|data: &[u8]| {
    let _ = BootVariable::decode(data);
    let mut named = b"BASCBOOT\x01\x00\x00\x00".to_vec();
    named.extend_from_slice(data);
    if let Some(variable) = BootVariable::decode(&named) {
        assert_eq!(BootVariable::decode(&variable.encode()), Some(variable));
    }
});
