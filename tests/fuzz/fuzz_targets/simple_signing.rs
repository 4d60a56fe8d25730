//! The older signature layout: a layer's annotation by a stranger, and a payload that our key
//! signed or did not. The first byte says which.
#![no_main]

use bascule_fuzz::publisher::publisher;
use libfuzzer_sys::fuzz_target;
use update_manifest::sign::describe;
use update_manifest::simple_signing::{ANNOTATION_SIGNATURE, MEDIA_SIMPLE_SIGNING, check};

fuzz_target!(|data: &[u8]| {
    let Some((mode, payload)) = data.split_first() else { return };
    let publisher = publisher();
    let subject = publisher.image.digest;
    let is_ours = mode % 2 == 0;
    let signature = match is_ours {
        true => publisher.sign(payload),
        false => String::from_utf8_lossy(payload).into_owned(),
    };
    let mut layer = describe(MEDIA_SIMPLE_SIGNING, payload);
    layer.annotations.insert(ANNOTATION_SIGNATURE.to_owned(), signature);
    let answer = check(&layer, payload, subject, &publisher.roots);
    assert!(is_ours || answer.is_err(), "vouched for without our signature");
});
