//! What our own key signed, but not as a release: SBOMs and the like, any bytes.
#![no_main]

use bascule_fuzz::publisher::publisher;
use libfuzzer_sys::fuzz_target;
use update_manifest::bundle;

fuzz_target!(|data: &[u8]| {
    let publisher = publisher();
    let subject = publisher.image.digest;
    let signed = publisher.bundle(data);
    if bundle::check(&signed, subject, &publisher.roots).is_ok() {
        let statement: serde_json::Value = serde_json::from_slice(data).expect("it was read");
        assert_eq!(statement["predicateType"], bundle::PURPOSE_IMAGE);
    }
});
