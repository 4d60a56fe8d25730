//! The choice of an image: never a panic, and what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_init::services::schedule::Schedule;
use os_init::services::upgrade::Upgrade;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(upgrade) = Upgrade::parse(text) {
        assert_eq!(Upgrade::parse(&upgrade.text()), Ok(upgrade));
    }
    // Another line of text that people write.
    if let Ok(schedule) = Schedule::parse(text) {
        let now = 1_800_000_000;
        if let Some(next) = schedule.next(now) {
            assert!(next > now);
            assert!(schedule.is_due(next / 60 - 1, next / 60));
        }
    }
});
