//! The name of an image, as an operator or a configuration may write it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use updater::registry::Reference;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference));
        // Both become part of an address.
        let name = reference.name();
        assert!(!name.contains(['?', '#', '@', ' ', '\\']), "{name}");
        assert!(name.split('/').all(|part| part != "." && part != ".."), "{name}");
    }
});
