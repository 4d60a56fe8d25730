//! From a signature to the facts of a release: each step believes only what the one before vouches
//! for, and what is signed and no release of ours is refused by name.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::collections::BTreeMap;

use partition_layout::frames::{FRAME_SIZE, FrameTable};
use partition_layout::labels::{self, ImageLabels, KIND_OS};
use serde_json::{Value, json};
use update_manifest::digest::Digest;
use update_manifest::oci::{
    CONFIG_BYTES_MAX, Document, ImageConfig, Index, MANIFEST_BYTES_MAX, MEDIA_CONFIG,
    MEDIA_DOCKER_MANIFEST, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST, Manifest, OciError,
};
use update_manifest::release::{NotARelease, Release};
use update_manifest::sign::{SigningKey, describe, sign_bundle, sign_simple};
use update_manifest::trust::{TrustRoots, TrustedKey};
use update_manifest::verified::{Broken, Candidate, Verdict, Verified, verify};

fn key() -> SigningKey {
    SigningKey::from_entropy(&[1; 32]).unwrap()
}

fn roots() -> TrustRoots {
    TrustRoots::new([TrustedKey::from_pem("ours", &key().public_pem().unwrap()).unwrap()])
}

/// What a trusted key vouches for once it has signed a document with these bytes.
fn vouched(document: &[u8]) -> Verified<Digest> {
    let image = describe(MEDIA_MANIFEST, document);
    let bundle = Candidate::Bundle(sign_bundle(&image, &key()).layer);
    match verify(image.digest, &[bundle], &roots()) {
        Verdict::Yes(verified) => verified,
        Verdict::No(reasons) => panic!("{reasons:?}"),
    }
}

/// A release on its way to be signed, to be changed before.
struct Draft {
    labels: BTreeMap<String, String>,
    layer: Value,
    config_media: &'static str,
    /// Takes the place of the config that was signed.
    other_config: Option<Vec<u8>>,
    layers: usize,
}

fn labels() -> ImageLabels {
    ImageLabels {
        product: "bascule".into(),
        kind: KIND_OS.into(),
        arch: "x86_64".into(),
        release: 5,
        secver: 2,
        min_from: 0,
        requires: Vec::new(),
        version: "0.5.0".into(),
        slot_size: 3 * FRAME_SIZE - 4096,
        slot_sha256: [3; 32],
        root_hash: [4; 32],
    }
}

fn frames() -> FrameTable {
    FrameTable { head: 60, slot: vec![1000, 2000, 3000], tail: 20 }
}

fn draft() -> Draft {
    let mut layer = describe(MEDIA_LAYER, b"a layer");
    layer.size = 7000;
    layer.annotations = [
        (labels::FRAME_SIZE, FRAME_SIZE.to_string()),
        (labels::FRAMES, frames().encode_slot()),
        (labels::FRAMES_HEAD, "60".into()),
        (labels::FRAMES_TAIL, "20".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    Draft {
        labels: labels().encode(),
        layer: serde_json::to_value(&layer).unwrap(),
        config_media: MEDIA_CONFIG,
        other_config: None,
        layers: 1,
    }
}

impl Draft {
    fn read(&self) -> Result<Release, NotARelease> {
        let config = json!({ "architecture": "amd64", "config": { "Labels": self.labels } });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "config": describe(self.config_media, &config),
            "layers": vec![&self.layer; self.layers],
        });
        let bytes = manifest.to_string().into_bytes();
        let manifest = vouched(&bytes).manifest(&bytes).unwrap();
        assert_eq!(manifest.config().digest, Digest::of(&config));
        let config = self.other_config.as_ref().unwrap_or(&config);
        let release = manifest.release(config)?;
        assert_eq!(release.key(), "ours");
        Ok(release.get().clone())
    }
}

#[test]
fn a_signed_release_says_what_it_is_and_where_its_frames_are() {
    let release = draft().read().unwrap();
    assert_eq!((release.labels, release.frames), (labels(), frames()));
    assert_eq!(release.layer.size, 7000);
}

#[test]
fn what_is_signed_and_no_release_of_ours_is_refused_by_name() {
    type Change = fn(&mut Draft);
    let cases: [(&str, Change); 14] = [
        ("config of kind \"application/json\"", |draft| draft.config_media = "application/json"),
        ("0 layers", |draft| draft.layers = 0),
        ("2 layers", |draft| draft.layers = 2),
        ("layer of kind \"text/plain\"", |draft| draft.layer["mediaType"] = "text/plain".into()),
        ("org.bascule.product is missing", |draft| {
            draft.labels.remove("org.bascule.product").unwrap();
        }),
        ("org.bascule.release is malformed", |draft| {
            draft.labels.insert("org.bascule.release".into(), "five".into());
        }),
        ("format", |draft| {
            draft.labels.insert("org.bascule.format".into(), "99".into());
        }),
        ("is missing", |draft| {
            draft.layer["annotations"].as_object_mut().unwrap().remove(labels::FRAMES);
        }),
        ("is malformed", |draft| draft.layer["annotations"][labels::FRAMES_HEAD] = "".into()),
        ("is malformed", |draft| draft.layer["annotations"][labels::FRAMES_HEAD] = "+60".into()),
        ("frames are not of", |draft| {
            draft.layer["annotations"][labels::FRAME_SIZE] = "524288".into();
        }),
        ("table is malformed", |draft| {
            draft.layer["annotations"][labels::FRAMES] = "AAAA".into();
        }),
        // Frames 60 + 6000 and a tail of 20: one byte less, and they do not lie in it.
        ("beyond the layer", |draft| draft.layer["size"] = 6079.into()),
        ("digest differs", |draft| draft.other_config = Some(b"{}".to_vec())),
    ];
    for (word, change) in cases {
        let mut draft = draft();
        change(&mut draft);
        let why = draft.read().unwrap_err().to_string();
        assert!(why.contains(word), "{word}: {why}");
    }
    let mut exact = draft();
    exact.layer["size"] = 6080.into();
    assert!(exact.read().is_ok());
}

#[test]
fn a_config_that_is_signed_and_unreadable_is_told_as_such() {
    for (config, expected) in
        [(b"<html>".to_vec(), "malformed"), (vec![b' '; CONFIG_BYTES_MAX + 1], "larger than")]
    {
        let bytes = json!({ "schemaVersion": 2, "config": describe(MEDIA_CONFIG, &config) });
        let bytes = bytes.to_string().into_bytes();
        let manifest = vouched(&bytes).manifest(&bytes).unwrap();
        let why = manifest.release(&config).unwrap_err();
        assert!(matches!(why, NotARelease::Config(Broken::Document(_))), "{why:?}");
        assert!(why.to_string().contains(expected), "{why}");
    }
    let bare = ImageConfig::parse(b"{}").unwrap();
    assert!(bare.labels().is_empty());
}

#[test]
fn other_bytes_than_were_signed_are_never_read() {
    let bytes = json!({ "schemaVersion": 2, "config": describe(MEDIA_CONFIG, b"{}") });
    let bytes = bytes.to_string().into_bytes();
    let longer = [&bytes[..], b" "].concat();
    let vouched = vouched(&bytes);
    assert_eq!(vouched.key(), "ours");
    assert_eq!(vouched.matches(&bytes), Ok(()));
    assert_eq!(vouched.matches(&longer), Err(Broken::DigestDiffers));
    assert_eq!(vouched.manifest(&longer).unwrap_err(), Broken::DigestDiffers);
    assert_eq!(vouched.document(&longer).unwrap_err(), Broken::DigestDiffers);
    assert!(Broken::DigestDiffers.to_string().contains("digest differs"));
}

#[test]
fn what_is_signed_and_no_document_is_told_as_such() {
    let garbage = vouched(b"<html>");
    assert!(matches!(garbage.manifest(b"<html>"), Err(Broken::Document(OciError::Malformed(_)))));
    assert!(matches!(garbage.document(b"<html>"), Err(Broken::Document(OciError::Malformed(_)))));
    let index = json!({ "schemaVersion": 2, "manifests": [] }).to_string().into_bytes();
    let Err(Broken::Document(why)) = vouched(&index).manifest(&index) else { panic!() };
    assert_eq!(why, OciError::WrongKind(MEDIA_INDEX.into()));
    assert!(why.to_string().contains("index"), "{why}");
}

#[test]
fn a_signed_index_vouches_for_the_one_image_that_fits() {
    let entry = |seed: &str, architecture: &str, os: &str| {
        let mut entry = serde_json::to_value(describe(MEDIA_MANIFEST, seed.as_bytes())).unwrap();
        entry["platform"] = json!({ "architecture": architecture, "os": os });
        entry
    };
    let selects = |entries: &[Value]| {
        let bytes = json!({ "schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries });
        let bytes = bytes.to_string().into_bytes();
        let document = vouched(&bytes).document(&bytes).unwrap();
        document.image("amd64").map(|image| {
            assert_eq!(image.key(), "ours");
            *image.get()
        })
    };
    let (ours, arm) = (entry("ours", "amd64", "linux"), entry("arm", "arm64", "linux"));
    let windows = entry("windows", "amd64", "windows");
    let bare = serde_json::to_value(describe(MEDIA_MANIFEST, b"bare")).unwrap();
    let all = [arm.clone(), windows, bare, ours.clone()];
    assert_eq!(selects(&all), Some(Digest::of(b"ours")));
    assert_eq!(selects(&[arm]), None);
    assert_eq!(selects(&[ours.clone(), entry("other", "amd64", "linux")]), None, "which one?");
    assert_eq!(selects(&[ours.clone(), ours]), None);
    // A manifest is no choice.
    let manifest = json!({ "schemaVersion": 2, "config": describe(MEDIA_CONFIG, b"{}") });
    let bytes = manifest.to_string().into_bytes();
    assert!(vouched(&bytes).document(&bytes).unwrap().image("amd64").is_none());
}

#[test]
fn documents_are_bounded_before_they_are_read() {
    let too_large = vec![b' '; MANIFEST_BYTES_MAX + 1];
    assert_eq!(Document::parse(&too_large), Err(OciError::TooLarge(MANIFEST_BYTES_MAX)));
    // Of the largest size, and no document: it was read.
    let largest = |size: usize| vec![b' '; size];
    assert!(matches!(Document::parse(&largest(MANIFEST_BYTES_MAX)), Err(OciError::Malformed(_))));
    let config = |size: usize| ImageConfig::parse(&largest(size));
    assert!(matches!(config(CONFIG_BYTES_MAX), Err(OciError::Malformed(_))));
    assert_eq!(config(CONFIG_BYTES_MAX + 1), Err(OciError::TooLarge(CONFIG_BYTES_MAX)));
    let entry = describe(MEDIA_LAYER, b"x");
    let most = json!({ "schemaVersion": 2, "config": &entry, "layers": vec![&entry; 4096] });
    assert!(Manifest::parse(most.to_string().as_bytes()).is_ok());
    let many = vec![&entry; 4097];
    let manifest = json!({ "schemaVersion": 2, "config": &entry, "layers": many }).to_string();
    assert_eq!(Manifest::parse(manifest.as_bytes()), Err(OciError::TooLarge(4096)));
    let index = json!({ "schemaVersion": 2, "manifests": many }).to_string();
    assert_eq!(Index::parse(index.as_bytes()), Err(OciError::TooLarge(4096)));
    assert_eq!(OciError::TooLarge(4096).to_string(), "larger than 4096 bytes");
    // As many as that are taken, and so is the kind of some copying tools.
    let most = json!({ "schemaVersion": 2, "manifests": vec![&entry; 4096] }).to_string();
    assert!(Index::parse(most.as_bytes()).is_ok());
    let docker = json!({ "schemaVersion": 2, "mediaType": MEDIA_DOCKER_MANIFEST, "config": entry });
    assert!(Manifest::parse(docker.to_string().as_bytes()).is_ok());
}

#[test]
fn a_simple_signature_vouches_as_a_bundle_does() {
    let image = describe(MEDIA_MANIFEST, b"an image");
    let signed = sign_simple(image.digest, "registry/os", &key());
    let layer = Manifest::parse(&signed.manifest).unwrap().layers.remove(0);
    let stranger = Candidate::Bundle(b"{}".to_vec());
    let candidates = [stranger.clone(), Candidate::Simple(Box::new(layer), signed.layer)];
    assert!(matches!(verify(image.digest, &candidates, &roots()), Verdict::Yes(_)));
    let Verdict::No(reasons) = verify(image.digest, &[stranger], &roots()) else { panic!() };
    assert_eq!(reasons.len(), 1);
    assert_eq!(verify(image.digest, &[], &roots()), Verdict::No(Vec::new()), "unsigned");
}
