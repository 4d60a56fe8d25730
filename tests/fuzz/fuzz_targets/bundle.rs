//! A sigstore bundle by a stranger: nothing that our key has not signed vouches for anything.
#![no_main]

use bascule_fuzz::publisher::publisher;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use update_manifest::bundle;
use update_manifest::digest::Digest;

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "dsseEnvelope")]
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

fuzz_target!(|data: &[u8]| {
    let publisher = publisher();
    let subject = publisher.image.digest;
    if bundle::check(data, subject, &publisher.roots).is_ok() {
        // The container around it may be anything, but this is the one statement that was signed.
        // Read by names alone: a number that no f64 holds is JSON, but not a `Value`.
        let bundle: Bundle = serde_json::from_slice(data).expect("it was read");
        let statement = STANDARD.encode(publisher.statement(&publisher.image));
        assert_eq!(bundle.dsse_envelope.payload, statement);
    }
    let other = Digest::of(b"another image");
    assert!(bundle::check(data, other, &publisher.roots).is_err(), "a replay");
});
