//! The public keys that may sign a release, and the one check of a signature by them.

use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};

use crate::digest::Digest;

/// Most keys that a trust root holds; more would make a check's cost a stranger's choice.
pub const KEYS_MAX: usize = 16;

/// One trusted public key with the name that messages give it.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    name: String,
    key: VerifyingKey,
}

impl TrustedKey {
    /// Reads a PEM public key (`BEGIN PUBLIC KEY`, ECDSA P-256), named `name` in messages.
    ///
    /// # Errors
    /// `None` when it is not such a key.
    pub fn from_pem(name: &str, pem: &str) -> Option<TrustedKey> {
        let key = VerifyingKey::from_public_key_pem(pem).ok()?;
        Some(TrustedKey { name: name.to_owned(), key })
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sha256 of the key's DER form: what cosign calls the hint.
    pub fn fingerprint(&self) -> Digest {
        self.key.to_public_key_der().map_or(Digest([0; 32]), |der| Digest::of(der.as_bytes()))
    }
}

/// The keys any one of which may sign a release.
#[derive(Debug, Clone, Default)]
pub struct TrustRoots {
    keys: Vec<TrustedKey>,
}

impl TrustRoots {
    /// A set of keys; those beyond [`KEYS_MAX`] are left out.
    pub fn new(keys: impl IntoIterator<Item = TrustedKey>) -> TrustRoots {
        TrustRoots { keys: keys.into_iter().take(KEYS_MAX).collect() }
    }

    /// The keys held.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// The name of the key that made `signature` (DER) over `message`, if one of ours did.
    pub fn who_signed(&self, message: &[u8], signature: &[u8]) -> Option<&str> {
        let signature = DerSignature::from_bytes(signature).ok()?;
        self.keys
            .iter()
            .find(|trusted| trusted.key.verify(message, &signature).is_ok())
            .map(TrustedKey::name)
    }
}

/// Why one signature container does not vouch for a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotVouched {
    /// Larger than the bound, in bytes.
    TooLarge(usize),
    /// Not the container that it claims to be; names the place.
    Malformed(String),
    /// A container or a purpose that we do not take; names it.
    Unsupported(String),
    /// No trusted key made this signature.
    UnknownKey,
    /// Signed by a trusted key, but for another purpose, such as an SBOM; names the purpose.
    WrongPurpose(String),
    /// Signed by a trusted key, but for another image.
    WrongSubject,
}

impl core::fmt::Display for NotVouched {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            NotVouched::TooLarge(bound) => write!(f, "signature larger than {bound} bytes"),
            NotVouched::Malformed(what) => write!(f, "malformed signature: {what}"),
            NotVouched::Unsupported(what) => write!(f, "signature format not supported: {what}"),
            NotVouched::UnknownKey => write!(f, "not signed by a trusted key"),
            NotVouched::WrongPurpose(what) => write!(f, "signed, but as {what}, not as an image"),
            NotVouched::WrongSubject => write!(f, "signature belongs to another image"),
        }
    }
}

impl std::error::Error for NotVouched {}
