//! The updater's part of the configuration: broken values cost themselves and are told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use updater::settings::Settings;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let settings = Settings::parse(text);
    assert!((10..=31 * 86_400).contains(&settings.interval.as_secs()));
    assert!(settings.problems.iter().all(|problem| !problem.is_empty()));
});
