//! What our own key signed, but not as a release: SBOMs and the like, any bytes.
#![no_main]

use bascule_fuzz::publisher::publisher;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use update_manifest::bundle;

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

fuzz_target!(|data: &[u8]| {
    let publisher = publisher();
    let subject = publisher.image.digest;
    let signed = publisher.bundle(data);
    if bundle::check(&signed, subject, &publisher.roots).is_ok() {
        // Read by names alone: a number that no f64 holds is JSON, but not a `Value`.
        let statement: Statement = serde_json::from_slice(data).expect("it was read");
        assert_eq!(statement.predicate_type, bundle::PURPOSE_IMAGE);
    }
});
