//! Signing a release, in both layouts that cosign reads, with an ECDSA P-256 key.
//!
//! Signatures are deterministic (RFC 6979): the same key and image give the same bytes, so a
//! build that is repeated gives the same signature too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use serde_json::json;

use crate::digest::Digest;
use crate::oci::{
    Descriptor, Index, MEDIA_CONFIG, MEDIA_EMPTY, MEDIA_INDEX, MEDIA_MANIFEST, Manifest, OciError,
};
use crate::{bundle, simple_signing};

/// A private key that signs releases.
pub struct SigningKey {
    key: p256::ecdsa::SigningKey,
}

/// Why text is not a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAKey;

impl core::fmt::Display for NotAKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not an unencrypted PKCS#8 PEM private key for ECDSA P-256")
    }
}

impl std::error::Error for NotAKey {}

impl SigningKey {
    /// Reads `-----BEGIN PRIVATE KEY-----` (PKCS#8, not encrypted, P-256).
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn from_pem(pem: &str) -> Result<SigningKey, NotAKey> {
        let key = p256::ecdsa::SigningKey::from_pkcs8_pem(pem).map_err(|_| NotAKey)?;
        Ok(SigningKey { key })
    }

    /// Makes a key of 32 bytes from the system's random source.
    ///
    /// # Errors
    /// [`NotAKey`] for the one in 2^32 byte strings that is no valid scalar: draw again.
    pub fn from_entropy(entropy: &[u8; 32]) -> Result<SigningKey, NotAKey> {
        let key = p256::ecdsa::SigningKey::from_slice(entropy).map_err(|_| NotAKey)?;
        Ok(SigningKey { key })
    }

    /// The private key as PKCS#8 PEM. Secret: the file must be readable by its owner only.
    ///
    /// # Errors
    /// [`NotAKey`] if the key cannot be encoded.
    pub fn to_pem(&self) -> Result<String, NotAKey> {
        self.key.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.to_string()).map_err(|_| NotAKey)
    }

    /// The public key as PEM, as `cosign verify --key` and the trust roots take it.
    ///
    /// # Errors
    /// [`NotAKey`] if the key cannot be encoded.
    pub fn public_pem(&self) -> Result<String, NotAKey> {
        self.public().to_public_key_pem(LineEnding::LF).map_err(|_| NotAKey)
    }

    fn public(&self) -> VerifyingKey {
        *self.key.verifying_key()
    }

    fn hint(&self) -> String {
        let der = self.public().to_public_key_der();
        der.map(|der| STANDARD.encode(Digest::of(der.as_bytes()).0)).unwrap_or_default()
    }

    /// The DER signature over `message`, hashed with sha256.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.key.sign(message);
        signature.as_bytes().to_vec()
    }
}

/// A signature as a registry keeps it: push `config` and `layer` as blobs, then `manifest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureArtifact {
    /// The manifest's raw bytes, of [`MEDIA_MANIFEST`].
    pub manifest: Vec<u8>,
    /// The config blob.
    pub config: Vec<u8>,
    /// The one layer blob: the bundle, or the simple-signing payload.
    pub layer: Vec<u8>,
    /// How an index lists this manifest.
    pub descriptor: Descriptor,
}

/// Signs `image` as cosign 3 does: a referrer whose layer is a bundle with a DSSE envelope.
///
/// Pushed by its digest; where the registry has no referrers API its descriptor is also merged
/// into the index under [`Digest::referrers_tag`] of the image (see [`merge_into_index`]).
pub fn sign_bundle(image: &Descriptor, key: &SigningKey) -> SignatureArtifact {
    let statement = json!({
        "_type": bundle::STATEMENT_TYPE,
        "subject": [{ "digest": { "sha256": image.digest.hex() } }],
        "predicateType": bundle::PURPOSE_IMAGE,
        "predicate": {},
    })
    .to_string();
    let message = bundle::pre_authentication(bundle::PAYLOAD_TYPE, statement.as_bytes());
    let layer = json!({
        "mediaType": bundle::MEDIA_BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": key.hint() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement),
            "payloadType": bundle::PAYLOAD_TYPE,
            "signatures": [{ "sig": STANDARD.encode(key.sign(&message)) }],
        },
    })
    .to_string()
    .into_bytes();
    let annotations = BTreeMap::from([
        ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType".to_owned(), bundle::PURPOSE_IMAGE.to_owned()),
    ]);
    let subject = Descriptor { annotations: BTreeMap::new(), platform: None, ..image.clone() };
    artifact(Parts {
        artifact_type: Some(bundle::MEDIA_BUNDLE.to_owned()),
        config: b"{}".to_vec(),
        config_media: MEDIA_EMPTY,
        layer,
        layer_media: bundle::MEDIA_BUNDLE,
        layer_annotations: BTreeMap::new(),
        subject: Some(subject),
        annotations,
    })
}

/// Signs `image` in cosign's older layout, pushed under [`Digest::signature_tag`] of the image.
/// `reference` is the repository's name for people (`registry/repo`); nobody may trust it.
pub fn sign_simple(image: Digest, reference: &str, key: &SigningKey) -> SignatureArtifact {
    let layer = json!({
        "critical": {
            "identity": { "docker-reference": reference },
            "image": { "docker-manifest-digest": image.to_string() },
            "type": simple_signing::PURPOSE_IMAGE,
        },
        "optional": null,
    })
    .to_string()
    .into_bytes();
    let signature = STANDARD.encode(key.sign(&layer));
    let config = json!({
        "architecture": "",
        "created": "0001-01-01T00:00:00Z",
        "history": [{ "created": "0001-01-01T00:00:00Z" }],
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
        "config": {},
    })
    .to_string()
    .into_bytes();
    let name = simple_signing::ANNOTATION_SIGNATURE.to_owned();
    artifact(Parts {
        artifact_type: None,
        config,
        config_media: MEDIA_CONFIG,
        layer,
        layer_media: simple_signing::MEDIA_SIMPLE_SIGNING,
        layer_annotations: BTreeMap::from([(name, signature)]),
        subject: None,
        annotations: BTreeMap::new(),
    })
}

/// The index under [`Digest::referrers_tag`] with `entry` in it: `existing` is what the tag holds
/// now, if anything. Entries already there are kept, `entry` is not listed twice.
///
/// # Errors
/// [`OciError`] when `existing` is not an index: then the tag is somebody else's, write nothing.
pub fn merge_into_index(existing: Option<&[u8]>, entry: Descriptor) -> Result<Vec<u8>, OciError> {
    let mut manifests = match existing {
        Some(bytes) => Index::parse(bytes)?.manifests,
        None => Vec::new(),
    };
    manifests.retain(|listed| listed.digest != entry.digest);
    manifests.push(entry);
    let index = Index { schema_version: 2, media_type: Some(MEDIA_INDEX.to_owned()), manifests };
    to_bytes(&index)
}

struct Parts {
    artifact_type: Option<String>,
    config: Vec<u8>,
    config_media: &'static str,
    layer: Vec<u8>,
    layer_media: &'static str,
    layer_annotations: BTreeMap<String, String>,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
}

fn artifact(parts: Parts) -> SignatureArtifact {
    let mut layer = describe(parts.layer_media, &parts.layer);
    layer.annotations = parts.layer_annotations;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MEDIA_MANIFEST.to_owned()),
        artifact_type: parts.artifact_type.clone(),
        config: describe(parts.config_media, &parts.config),
        layers: vec![layer],
        subject: parts.subject,
        annotations: parts.annotations.clone(),
    };
    // Our own structs of strings and numbers always have a JSON form.
    let manifest = to_bytes(&manifest).unwrap_or_default();
    let mut descriptor = describe(MEDIA_MANIFEST, &manifest);
    descriptor.artifact_type = parts.artifact_type;
    descriptor.annotations = parts.annotations;
    SignatureArtifact { manifest, config: parts.config, layer: parts.layer, descriptor }
}

/// The descriptor of `bytes` as `media_type`.
pub fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn to_bytes<T: serde::Serialize>(document: &T) -> Result<Vec<u8>, OciError> {
    serde_json::to_vec(document).map_err(|error| OciError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{NotVouched, TrustRoots, TrustedKey};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_entropy(&[seed; 32]).unwrap()
    }

    fn roots(key: &SigningKey) -> TrustRoots {
        let pem = key.public_pem().unwrap();
        TrustRoots::new([TrustedKey::from_pem("test", &pem).unwrap()])
    }

    fn image() -> Descriptor {
        describe(MEDIA_MANIFEST, b"an image")
    }

    #[test]
    fn a_key_survives_its_pem() {
        let pem = key(7).to_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"));
        let again = SigningKey::from_pem(&pem).unwrap();
        assert_eq!(again.public_pem(), key(7).public_pem());
        assert!(SigningKey::from_pem("-----BEGIN PRIVATE KEY-----\n").is_err());
    }

    #[test]
    fn both_layouts_verify_and_repeat() {
        let (ours, image) = (key(1), image());
        let bundle = sign_bundle(&image, &ours);
        assert_eq!(bundle, sign_bundle(&image, &ours));
        let check = |roots: &TrustRoots| bundle::check(&bundle.layer, image.digest, roots);
        assert_eq!(check(&roots(&ours)), Ok("test".to_owned()));
        assert_eq!(check(&roots(&key(2))), Err(NotVouched::UnknownKey));

        let simple = sign_simple(image.digest, "registry/os", &ours);
        let layer = &Manifest::parse(&simple.manifest).unwrap().layers[0];
        let check = |roots: &TrustRoots, subject| {
            simple_signing::check(layer, &simple.layer, subject, roots)
        };
        assert_eq!(check(&roots(&ours), image.digest), Ok("test".to_owned()));
        assert_eq!(check(&roots(&key(2)), image.digest), Err(NotVouched::UnknownKey));
        let other = Digest::of(b"another image");
        assert_eq!(check(&roots(&ours), other), Err(NotVouched::WrongSubject));
    }

    #[test]
    fn a_referrer_index_grows_and_keeps_what_it_has() {
        let (first, second) = (image(), describe(MEDIA_MANIFEST, b"other"));
        let one = merge_into_index(None, first.clone()).unwrap();
        let two = merge_into_index(Some(&one), second.clone()).unwrap();
        let same = merge_into_index(Some(&two), second.clone()).unwrap();
        assert_eq!(two, same);
        assert_eq!(Index::parse(&two).unwrap().manifests, [first.clone(), second]);
        assert!(merge_into_index(Some(b"<html>"), first).is_err());
    }
}
