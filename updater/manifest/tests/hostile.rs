//! Field case SG-4 and its kin: signature containers and manifests by somebody who wishes us ill,
//! or who merely does it another way.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use update_manifest::digest::Digest;
use update_manifest::oci::{Descriptor, Document, Index, MEDIA_MANIFEST, Manifest};
use update_manifest::sign::{SigningKey, describe, sign_bundle, sign_simple};
use update_manifest::trust::{KEYS_MAX, NotVouched, TrustRoots, TrustedKey};
use update_manifest::verified::{CANDIDATES_MAX, Candidate, Verdict, verify};
use update_manifest::{bundle, simple_signing};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_entropy(&[seed; 32]).unwrap()
}

fn roots() -> TrustRoots {
    let pem = key(1).public_pem().unwrap();
    TrustRoots::new([TrustedKey::from_pem("ours", &pem).unwrap()])
}

fn image() -> Descriptor {
    describe(MEDIA_MANIFEST, b"an image")
}

fn good_bundle() -> Value {
    serde_json::from_slice(&sign_bundle(&image(), &key(1)).layer).unwrap()
}

fn check(bundle: &Value) -> Result<String, NotVouched> {
    bundle::check(bundle.to_string().as_bytes(), image().digest, &roots())
}

#[test]
fn what_nobody_needs_changes_nothing() {
    let mut bundle = good_bundle();
    bundle["verificationMaterial"]["publicKey"]["hint"] = "somebody else's".into();
    bundle["verificationMaterial"]["tlogEntries"] = json!([{ "kindVersion": { "kind": "dsse" } }]);
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = "another".into();
    assert_eq!(check(&bundle), Ok("ours".into()));
    bundle["verificationMaterial"] = Value::Null;
    assert_eq!(check(&bundle), Ok("ours".into()), "trust is in our keys, not in hints");
}

#[test]
fn wrong_types_and_sizes_are_refused() {
    type Change = fn(&mut Value);
    let malformed: [(&str, Change); 6] = [
        ("media type", |b| b["mediaType"] = 3.into()),
        ("payload", |b| b["dsseEnvelope"]["payload"] = 7.into()),
        ("base64", |b| b["dsseEnvelope"]["payload"] = "%%%".into()),
        ("signatures", |b| b["dsseEnvelope"]["signatures"] = "x".into()),
        ("envelope", |b| b["dsseEnvelope"] = Value::Null),
        ("both", |b| b["messageSignature"] = json!({ "signature": "AA==" })),
    ];
    for (name, change) in malformed {
        let mut bundle = good_bundle();
        change(&mut bundle);
        let answer = check(&bundle);
        assert!(matches!(answer, Err(NotVouched::Malformed(_))), "{name}: {answer:?}");
    }
    let mut huge = good_bundle();
    huge["verificationMaterial"] = "x".repeat(50 << 20).into();
    assert!(matches!(check(&huge), Err(NotVouched::TooLarge(_))));
}

#[test]
fn formats_that_are_not_taken_are_named() {
    let mut bare = good_bundle();
    bare["messageSignature"] = json!({ "messageDigest": {}, "signature": "AA==" });
    bare.as_object_mut().unwrap().remove("dsseEnvelope");
    assert_eq!(check(&bare), Err(NotVouched::Unsupported("messageSignature".into())));
    let mut later = good_bundle();
    later["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.9+json".into();
    let answer = check(&later).unwrap_err().to_string();
    assert!(answer.contains("v0.9"), "{answer}");
    let mut payload = good_bundle();
    payload["dsseEnvelope"]["payloadType"] = "text/plain".into();
    assert!(matches!(check(&payload), Err(NotVouched::Unsupported(_))));
}

/// Signs a statement of our choice with our own key, as an SBOM tool would.
fn stated(statement: &Value) -> Value {
    let mut bundle = good_bundle();
    let text = statement.to_string();
    let kind = bundle::PAYLOAD_TYPE;
    let message = format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len());
    bundle["dsseEnvelope"]["payload"] = STANDARD.encode(&text).into();
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = STANDARD.encode(raw_sign(&message)).into();
    bundle
}

fn raw_sign(message: &str) -> Vec<u8> {
    use p256::ecdsa::signature::Signer as _;
    let key = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let signature: p256::ecdsa::DerSignature = key.sign(message.as_bytes());
    signature.as_bytes().to_vec()
}

#[test]
fn a_signature_for_another_purpose_or_image_vouches_for_nothing() {
    let subject = json!([{ "digest": { "sha256": image().digest.hex() } }]);
    let statement = |predicate: &str, subject: &Value| {
        json!({ "_type": bundle::STATEMENT_TYPE, "predicateType": predicate, "subject": subject,
            "predicate": {} })
    };
    assert_eq!(check(&stated(&statement(bundle::PURPOSE_IMAGE, &subject))), Ok("ours".into()));
    for purpose in ["https://spdx.dev/Document", "https://slsa.dev/provenance/v1", ""] {
        let answer = check(&stated(&statement(purpose, &subject)));
        assert_eq!(answer, Err(NotVouched::WrongPurpose(purpose.into())));
    }
    let other = json!([{ "digest": { "sha256": Digest::of(b"other").hex() } }]);
    let answer = check(&stated(&statement(bundle::PURPOSE_IMAGE, &other)));
    assert_eq!(answer, Err(NotVouched::WrongSubject), "a replay");
    let answer = check(&stated(&statement(bundle::PURPOSE_IMAGE, &json!([]))));
    assert_eq!(answer, Err(NotVouched::WrongSubject));
    let mut later = statement(bundle::PURPOSE_IMAGE, &subject);
    later["_type"] = "https://in-toto.io/Statement/v9".into();
    let answer = check(&stated(&later)).unwrap_err().to_string();
    assert!(answer.contains("v9"), "{answer}");
}

/// Signs a simple payload of our choice with our own key.
fn simple(purpose: &str, digest: &str) -> Result<String, NotVouched> {
    let payload = json!({ "critical": { "type": purpose,
        "image": { "docker-manifest-digest": digest } } });
    simple_payload(&payload.to_string())
}

fn simple_payload(payload: &str) -> Result<String, NotVouched> {
    let mut layer = describe(simple_signing::MEDIA_SIMPLE_SIGNING, payload.as_bytes());
    let name = simple_signing::ANNOTATION_SIGNATURE.to_owned();
    layer.annotations.insert(name, STANDARD.encode(raw_sign(payload)));
    simple_signing::check(&layer, payload.as_bytes(), image().digest, &roots())
}

#[test]
fn a_simple_signature_for_another_purpose_or_image_vouches_for_nothing() {
    let (purpose, ours) = (simple_signing::PURPOSE_IMAGE, image().digest.to_string());
    assert_eq!(simple(purpose, &ours), Ok("ours".into()));
    for other in ["cosign container image attestation", ""] {
        assert_eq!(simple(other, &ours), Err(NotVouched::WrongPurpose(other.into())));
    }
    for other in [&Digest::of(b"other").to_string(), "", "sha512:00", &ours.to_uppercase()] {
        assert_eq!(simple(purpose, other), Err(NotVouched::WrongSubject), "{other}");
    }
    assert!(
        matches!(simple_payload("<html>"), Err(NotVouched::Malformed(_))),
        "signed, and no JSON"
    );
}

#[test]
fn no_signature_longer_than_one_is_looked_at() {
    let mut bundle = good_bundle();
    let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap().to_owned();
    let mut signature = STANDARD.decode(signature).unwrap();
    signature.resize(81, 0);
    assert_eq!(roots().who_signed(b"", &signature), None);
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = STANDARD.encode(signature).into();
    assert_eq!(check(&bundle), Err(NotVouched::UnknownKey));
}

#[test]
fn trust_roots_are_bounded_and_their_keys_have_names() {
    let pem = key(1).public_pem().unwrap();
    let ours = TrustedKey::from_pem("ours", &pem).unwrap();
    // What cosign calls the hint is in the bundle that we write.
    let hint = good_bundle()["verificationMaterial"]["publicKey"]["hint"].clone();
    assert_eq!(hint, STANDARD.encode(ours.fingerprint().0));
    let many = TrustRoots::new(vec![ours; KEYS_MAX + 1]);
    assert_eq!((many.keys().len(), many.keys()[0].name()), (KEYS_MAX, "ours"));
    assert!(TrustedKey::from_pem("private", &key(1).to_pem().unwrap()).is_none());
}

#[test]
fn each_reason_is_told_in_its_own_words() {
    let reasons = [
        NotVouched::TooLarge(7),
        NotVouched::Malformed("x".into()),
        NotVouched::Unsupported("x".into()),
        NotVouched::UnknownKey,
        NotVouched::WrongPurpose("x".into()),
        NotVouched::WrongSubject,
    ];
    let words: std::collections::BTreeSet<String> =
        reasons.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), reasons.len());
    assert!(words.iter().all(|words| words.len() > 10), "{words:?}");
    let wrong = SigningKey::from_entropy(&[0; 32]).map(drop).unwrap_err();
    assert!(wrong.to_string().contains("P-256"));
}

#[test]
fn a_moved_byte_between_type_and_payload_breaks_the_signature() {
    let mut bundle = good_bundle();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap().to_owned();
    let mut text = STANDARD.decode(payload).unwrap();
    text.push(b' ');
    bundle["dsseEnvelope"]["payload"] = STANDARD.encode(text).into();
    assert_eq!(check(&bundle), Err(NotVouched::UnknownKey));
}

#[test]
fn a_thousand_signatures_cost_a_bounded_number_of_checks() {
    let stranger = sign_bundle(&image(), &key(2)).layer;
    let mut candidates = vec![Candidate::Bundle(stranger); 1000];
    candidates.push(Candidate::Bundle(sign_bundle(&image(), &key(1)).layer));
    match verify(image().digest, &candidates, &roots()) {
        Verdict::No(reasons) => assert_eq!(reasons.len(), CANDIDATES_MAX),
        Verdict::Yes(_) => panic!("looked further than the bound"),
    }
    candidates.rotate_right(1);
    assert!(matches!(verify(image().digest, &candidates, &roots()), Verdict::Yes(_)));
    let mut bundle = good_bundle();
    let ours = bundle["dsseEnvelope"]["signatures"][0].clone();
    let bad = json!({ "sig": "MAYCAQECAQE=" });
    let mut many = vec![bad; 5000];
    many.push(ours);
    bundle["dsseEnvelope"]["signatures"] = many.into();
    assert_eq!(check(&bundle), Err(NotVouched::UnknownKey));
}

#[test]
fn simple_signing_is_bound_to_its_layer() {
    let signed = sign_simple(image().digest, "registry/os", &key(1));
    let layer = Manifest::parse(&signed.manifest).unwrap().layers.remove(0);
    let check = |layer: &Descriptor, payload: &[u8]| {
        simple_signing::check(layer, payload, image().digest, &roots())
    };
    assert_eq!(check(&layer, &signed.layer), Ok("ours".into()));
    assert!(matches!(check(&layer, b"{}"), Err(NotVouched::Malformed(_))));
    let mut bare = layer.clone();
    bare.annotations.clear();
    assert!(matches!(check(&bare, &signed.layer), Err(NotVouched::Malformed(_))));
    let mut garbage = layer.clone();
    let name = simple_signing::ANNOTATION_SIGNATURE.to_owned();
    garbage.annotations.insert(name, "not base64!".into());
    assert!(matches!(check(&garbage, &signed.layer), Err(NotVouched::Malformed(_))));
    let large = vec![b' '; simple_signing::PAYLOAD_BYTES_MAX + 1];
    assert!(matches!(check(&layer, &large), Err(NotVouched::TooLarge(_))));
    let most = vec![b' '; simple_signing::PAYLOAD_BYTES_MAX];
    assert!(matches!(check(&layer, &most), Err(NotVouched::Malformed(_))), "it is read");
}

#[test]
fn a_bundle_of_the_largest_size_is_read() {
    let mut bundle = good_bundle().to_string().into_bytes();
    bundle.resize(bundle::BUNDLE_BYTES_MAX, b' ');
    let checked = |bytes: &[u8]| bundle::check(bytes, image().digest, &roots());
    assert_eq!(checked(&bundle), Ok("ours".into()));
    bundle.push(b' ');
    assert!(matches!(checked(&bundle), Err(NotVouched::TooLarge(_))));
}

/// What a bundle says of its subject is only what it is: digest, size and kind.
#[test]
fn a_subject_is_named_without_what_an_index_says_of_it() {
    let mut listed = image();
    listed.annotations.insert("some".into(), "thing".into());
    listed.platform =
        Some(update_manifest::oci::Platform { architecture: "amd64".into(), os: "linux".into() });
    let signed = sign_bundle(&listed, &key(1));
    assert_eq!(Manifest::parse(&signed.manifest).unwrap().subject, Some(image()));
}

/// What a stranger wrote is told, but bounded and on one line.
#[test]
fn a_parsers_words_are_told_in_short() {
    let long = format!("{{\"schemaVersion\": \"{}\", \"config\": 1}}", "x".repeat(500));
    let Err(error) = Manifest::parse(long.as_bytes()) else { panic!("a manifest") };
    let told = error.to_string();
    assert!(told.starts_with("malformed: ") && told.contains("invalid"), "{told}");
    assert!(told.len() < 200 && !told.chars().any(char::is_control), "{told}");
}

#[test]
fn documents_are_what_they_say_or_nothing() {
    let manifest = json!({ "schemaVersion": 2, "config": image(), "layers": [image()] });
    assert!(Manifest::parse(manifest.to_string().as_bytes()).is_ok());
    let index = json!({ "schemaVersion": 2, "manifests": [image()] });
    assert!(Index::parse(index.to_string().as_bytes()).is_ok());
    let both = json!({ "schemaVersion": 2, "config": image(), "layers": [], "manifests": [] });
    for bad in [both, json!({}), json!([]), json!({ "schemaVersion": 1, "config": image() })] {
        assert!(Document::parse(bad.to_string().as_bytes()).is_err(), "{bad}");
    }
    let claimed = json!({ "schemaVersion": 2, "manifests": [], "mediaType": MEDIA_MANIFEST });
    assert!(Document::parse(claimed.to_string().as_bytes()).is_err());
    let deep = "[".repeat(100_000);
    assert!(Document::parse(deep.as_bytes()).is_err());
    let twice = r#"{"schemaVersion":2,"config":1,"config":2}"#;
    assert!(Document::parse(twice.as_bytes()).is_err());
}

proptest! {
    // Each case checks signatures, which takes its time in a debug build.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_bytes_make_a_parser_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        // The answer does not matter; that there is one does.
        let _ = Document::parse(&bytes);
        prop_assert!(bundle::check(&bytes, image().digest, &roots()).is_err());
        prop_assert!(SigningKey::from_pem(&String::from_utf8_lossy(&bytes)).is_err());
        prop_assert_eq!(Digest::parse(&String::from_utf8_lossy(&bytes)), None);
    }

    #[test]
    fn no_flipped_bit_in_a_bundle_vouches_for_another_image(at in 0usize..900, bit in 0u8..8) {
        let mut bundle = sign_bundle(&image(), &key(1)).layer;
        let at = at % bundle.len();
        bundle[at] ^= 1 << bit;
        prop_assert!(bundle::check(&bundle, Digest::of(b"other"), &roots()).is_err());
    }

    #[test]
    fn digests_come_back(bytes in any::<[u8; 32]>()) {
        let digest = Digest(bytes);
        prop_assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
    }
}
