//! A publisher whose key signs whatever a fuzz target likes: past the signature lie more parsers.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use serde_json::json;
use update_manifest::bundle::{MEDIA_BUNDLE, PAYLOAD_TYPE, PURPOSE_IMAGE, STATEMENT_TYPE};
use update_manifest::oci::{Descriptor, MEDIA_MANIFEST};
use update_manifest::sign::{self, describe};
use update_manifest::trust::{TrustRoots, TrustedKey};

/// The scalar of the key. It guards nothing.
const SCALAR: [u8; 32] = [1; 32];

/// A key, trust in it, and an image.
pub struct Publisher {
    /// Trust in exactly this publisher.
    pub roots: TrustRoots,
    /// An image that may be signed.
    pub image: Descriptor,
    /// The same key, for the layouts that are signed in the ordinary way.
    pub ordinary: sign::SigningKey,
    key: SigningKey,
}

/// The publisher, the same for every input.
#[must_use]
pub fn publisher() -> &'static Publisher {
    static PUBLISHER: OnceLock<Publisher> = OnceLock::new();
    PUBLISHER.get_or_init(|| {
        let ordinary = sign::SigningKey::from_entropy(&SCALAR).expect("a valid scalar");
        let pem = ordinary.public_pem().expect("a public key has a PEM form");
        let key = TrustedKey::from_pem("publisher", &pem).expect("our own PEM is read");
        Publisher {
            roots: TrustRoots::new([key]),
            image: describe(MEDIA_MANIFEST, b"an image"),
            ordinary,
            key: SigningKey::from_slice(&SCALAR).expect("a valid scalar"),
        }
    })
}

impl Publisher {
    /// The signature over `message`, in base64.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        let signature: DerSignature = self.key.sign(message);
        STANDARD.encode(signature.as_bytes())
    }

    /// A bundle with `payload` inside, signed.
    #[must_use]
    pub fn bundle(&self, payload: &[u8]) -> Vec<u8> {
        let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
        let signature = self.sign(&[head.as_bytes(), payload].concat());
        let bundle = json!({
            "mediaType": MEDIA_BUNDLE,
            "dsseEnvelope": {
                "payload": STANDARD.encode(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{ "sig": signature }],
            },
        });
        bundle.to_string().into_bytes()
    }

    /// The statement that `image` is a release.
    #[must_use]
    pub fn statement(&self, image: &Descriptor) -> Vec<u8> {
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": [{ "digest": { "sha256": image.digest.hex() } }],
            "predicateType": PURPOSE_IMAGE,
            "predicate": {},
        });
        statement.to_string().into_bytes()
    }
}
