//! Writes the seeds of the updater's targets into `corpus/`: valid input, from what writes it.
//!
//! `cargo run --example seeds_updater` in `tests/fuzz`, after a format has grown.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use bascule_fuzz::publisher::publisher;
use partition_layout::frames::{FRAME_SIZE, FrameTable};
use partition_layout::labels::{self, ImageLabels, KIND_OS};
use update_manifest::oci::{
    Index, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST, Platform,
};
use update_manifest::sign::{describe, sign_bundle, sign_simple};

fn main() -> io::Result<()> {
    let publisher = publisher();
    let image = &publisher.image;
    let signed = sign_bundle(image, &publisher.ordinary);
    let simple = sign_simple(image.digest, "registry.example/os", &publisher.ordinary);
    keep("bundle", "valid", &signed.layer)?;
    keep("statement", "valid", &publisher.statement(image))?;
    keep("simple_signing", "valid", &[&[0], &simple.layer[..]].concat())?;
    let (annotations, config) = release();
    keep("release", "valid", &[annotations.as_bytes(), b"\n", &config].concat())?;

    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": describe(MEDIA_CONFIG, &config),
        "layers": [describe(MEDIA_LAYER, b"a layer")],
    });
    keep("oci", "manifest", manifest.to_string().as_bytes())?;
    keep("oci", "config", &config)?;
    let mut entry = image.clone();
    entry.platform = Some(Platform { architecture: "amd64".into(), os: "linux".into() });
    let manifests = vec![entry, signed.descriptor];
    let index = Index { schema_version: 2, media_type: Some(MEDIA_INDEX.into()), manifests };
    keep("oci", "index", serde_json::json!(index).to_string().as_bytes())?;

    for (name, value) in [
        ("range", "bytes 0-1023/146515"),
        ("wait", "120"),
        ("link", "</v2/os/referrers/sha256:00?n=50>; rel=\"next\""),
        (
            "bearer",
            "Bearer realm=\"https://auth.example/t\",service=\"r\",scope=\"repository:os:pull\"",
        ),
    ] {
        keep("registry_headers", name, value.as_bytes())?;
    }
    let pinned = format!("[::1]:5000/bascule/os:v1@{}", image.digest);
    keep("reference", "tag", b"registry.example:5000/bascule/os:stable")?;
    keep("reference", "digest", pinned.as_bytes())?;
    let settings = "[update]\nsource = \"10.0.2.2:5000/bascule/os:stable\"\nplain_http = true\n\
        policy = \"auto\"\ninterval_s = 600\nwindow = \"22:00-02:00\"\nca_file = \"/etc/ca.pem\"\n\
        username = \"machine\"\npassword_file = \"/etc/password\"\n";
    keep("update_settings", "full.toml", settings.as_bytes())
}

/// The annotations of a layer of two frames, and the config of its image.
fn release() -> (String, Vec<u8>) {
    let frames = FrameTable { head: 60, slot: vec![70_000, 900], tail: 20 };
    let labels = ImageLabels {
        product: "bascule".into(),
        kind: KIND_OS.into(),
        arch: "x86_64".into(),
        release: 7,
        secver: 2,
        min_from: 1,
        requires: Vec::new(),
        version: "1.0".into(),
        slot_size: FRAME_SIZE + 4096,
        slot_sha256: [1; 32],
        root_hash: [2; 32],
    };
    let annotations = BTreeMap::from([
        (labels::FRAME_SIZE, FRAME_SIZE.to_string()),
        (labels::FRAMES, frames.encode_slot()),
        (labels::FRAMES_HEAD, frames.head.to_string()),
        (labels::FRAMES_TAIL, frames.tail.to_string()),
    ]);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": labels.encode()},
    });
    (serde_json::json!(annotations).to_string(), config.to_string().into_bytes())
}

fn keep(target: &str, name: &str, seed: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), seed)
}
