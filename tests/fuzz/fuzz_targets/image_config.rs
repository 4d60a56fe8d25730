//! The config of a service's image: never a panic, and no program is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_init::services::file::ServiceFile;
use os_init::services::images::Process;

fuzz_target!(|data: &[u8]| {
    let image = "0".repeat(64);
    let text = format!("format = 1\nname = \"a\"\nimage = \"r/a@sha256:{image}\"\n");
    let file = ServiceFile::parse(&text).expect("a service file");
    if let Ok(process) = Process::read(&file, data, None) {
        assert!(!process.args.is_empty());
        assert!(process.folder.starts_with('/'));
    }
});
