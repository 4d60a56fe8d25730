//! A signed image that may be no release: the annotations of its layer, a line feed, its config.
#![no_main]

use bascule_fuzz::publisher::publisher;
use libfuzzer_sys::fuzz_target;
use update_manifest::oci::{MEDIA_CONFIG, MEDIA_LAYER, MEDIA_MANIFEST};
use update_manifest::sign::describe;
use update_manifest::verified::{Candidate, Verdict, verify};

/// Size of the layer, which nobody reads here.
const LAYER_SIZE: u64 = 100 << 20;

fuzz_target!(|data: &[u8]| {
    let Some(at) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (annotations, config) = data.split_at(at);
    let Ok(annotations) = serde_json::from_slice(annotations) else { return };
    let config = &config[1..];
    let mut layer = describe(MEDIA_LAYER, b"");
    layer.size = LAYER_SIZE;
    layer.annotations = annotations;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "config": describe(MEDIA_CONFIG, config), "layers": [layer],
    });
    let manifest = manifest.to_string().into_bytes();
    let image = describe(MEDIA_MANIFEST, &manifest);
    let publisher = publisher();
    let candidate = Candidate::Bundle(publisher.bundle(&publisher.statement(&image)));
    let Verdict::Yes(vouched) = verify(image.digest, &[candidate], &publisher.roots) else {
        panic!("our own signature is not accepted");
    };
    let Ok(manifest) = vouched.manifest(&manifest) else { return };
    let Ok(release) = manifest.release(config) else { return };
    let frames = &release.get().frames;
    let end = frames.offset(frames.slot.len()).expect("frames that were accepted have an end");
    assert!(end <= LAYER_SIZE);
});
