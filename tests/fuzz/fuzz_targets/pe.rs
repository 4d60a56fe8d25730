//! A UEFI program: as the stub of a kernel image, its sections, and its signatures.
#![no_main]

use image_builder::pe;
use image_builder::uki::{Parts, assemble};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = pe::section(data, ".initrd");
    if let Ok((place, found)) = pe::certificates(data) {
        assert!(place <= data.len());
        let mut twice = data.to_vec();
        if pe::add_certificates(&mut twice, data).is_ok() {
            let (same, more) = pe::certificates(&twice).expect("what was put together");
            assert_eq!((same, more.len()), (place, 2 * found.len()));
        }
    }
    let parts = Parts {
        stub: data,
        os_release: "ID=bascule\n",
        command_line: "gpt",
        kernel_release: "6.12",
        kernel: &[7; 100],
        initrd: &[8; 100],
    };
    if let Ok(image) = assemble(&parts) {
        let headers = pe::Headers::of(&image).expect("still a program");
        let stub = pe::Headers::of(data).expect("it was one");
        assert_eq!(headers.sections, stub.sections + 5);
        // The stub's own section of that name comes first, as it does for the stub.
        if pe::section(data, ".linux").is_err_and(|error| error.to_string().contains("has no")) {
            assert_eq!(pe::section(&image, ".linux").ok(), Some(&[7; 100][..]));
        }
    }
});
