//! The only door from bytes to facts.
//!
//! A [`Verified`] value exists only because a trusted key vouched for its digest, or because a
//! value that was verified names its digest. There is no other constructor.

use crate::digest::Digest;
use crate::oci::{Descriptor, Document, Manifest, OciError};
use crate::trust::{NotVouched, TrustRoots};
use crate::{bundle, simple_signing};

/// A value that a trusted key vouched for, directly or through a chain of digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    key: String,
}

impl<T> Verified<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The name of the key that signed.
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn with<U>(&self, value: U) -> Verified<U> {
        Verified { value, key: self.key.clone() }
    }
}

/// Why bytes do not belong to a verified digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The bytes have another digest.
    DigestDiffers,
    /// The bytes are what was signed, but not a document that we can read.
    Document(OciError),
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Broken::DigestDiffers => f.write_str("digest differs from the signed one"),
            Broken::Document(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Broken {}

impl Verified<Digest> {
    /// The document that has this digest.
    ///
    /// # Errors
    /// [`Broken`] when `bytes` are not it.
    pub fn document(&self, bytes: &[u8]) -> Result<Verified<Document>, Broken> {
        self.matches(bytes)?;
        Ok(self.with(Document::parse(bytes).map_err(Broken::Document)?))
    }

    /// The manifest that has this digest.
    ///
    /// # Errors
    /// [`Broken`] when `bytes` are not it.
    pub fn manifest(&self, bytes: &[u8]) -> Result<Verified<Manifest>, Broken> {
        self.matches(bytes)?;
        Ok(self.with(Manifest::parse(bytes).map_err(Broken::Document)?))
    }

    /// Whether `bytes` have this digest.
    ///
    /// # Errors
    /// [`Broken::DigestDiffers`].
    pub fn matches(&self, bytes: &[u8]) -> Result<(), Broken> {
        if Digest::of(bytes) == self.value { Ok(()) } else { Err(Broken::DigestDiffers) }
    }
}

impl Verified<Document> {
    /// Where this is an index: the digest of the one manifest for `architecture` (`amd64`),
    /// vouched for by the index.
    pub fn image(&self, architecture: &str) -> Option<Verified<Digest>> {
        match &self.value {
            Document::Index(index) => {
                index.select(architecture).map(|entry| self.with(entry.digest))
            }
            Document::Manifest(_) => None,
        }
    }
}

/// Most signature containers tried for one image. More are not looked at: a stranger may attach
/// any number, and each costs a request.
pub const CANDIDATES_MAX: usize = 32;

/// One thing that may be a signature, fetched by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// The bytes of a sigstore bundle.
    Bundle(Vec<u8>),
    /// A layer of a `.sig` manifest and its payload.
    Simple(Box<Descriptor>, Vec<u8>),
}

/// What a check of candidates answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A trusted key vouches for the digest.
    Yes(Verified<Digest>),
    /// None does. Holds why each candidate does not; empty when there is no signature at all.
    No(Vec<NotVouched>),
}

/// Whether any one of the first [`CANDIDATES_MAX`] `candidates` vouches for `subject`.
///
/// The third answer, *cannot know*, is the shell's: it arises while candidates are fetched, and
/// this function must then not be asked.
pub fn verify(subject: Digest, candidates: &[Candidate], roots: &TrustRoots) -> Verdict {
    let mut reasons = Vec::new();
    for candidate in candidates.iter().take(CANDIDATES_MAX) {
        let answer = match candidate {
            Candidate::Bundle(bytes) => bundle::check(bytes, subject, roots),
            Candidate::Simple(layer, payload) => {
                simple_signing::check(layer, payload, subject, roots)
            }
        };
        match answer {
            Ok(key) => {
                return Verdict::Yes(Verified { value: subject, key });
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Verdict::No(reasons)
}
