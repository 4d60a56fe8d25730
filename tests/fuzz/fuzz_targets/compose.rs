//! A compose file: never a panic, and what is said to be fine is a service file that bears its name.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use os_init::services::compose::{convert, images};
use os_init::services::file::ServiceFile;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = images(text);
    let Ok(all) = convert(text, &BTreeMap::new()) else { return };
    for service in all.iter().filter(|it| it.problem.is_none()) {
        let file = ServiceFile::parse(&service.text).expect("fine, it said");
        assert_eq!(file.name, service.name);
        assert!(!file.new_privileges && !file.network_settings);
    }
});
