//! From what a registry sent to the manifest for this machine, vouched for by a trusted key: the same
//! way for releases and for images of services.

use update_manifest::digest::Digest;
use update_manifest::oci::{Document, Manifest};
use update_manifest::trust::{NotVouched, TrustRoots};
use update_manifest::verified::Verified;

use crate::failure::{Class, Failure};
use crate::registry::pull::Pulled;
use crate::registry::signatures::Signed;
use crate::registry::{Reference, Registry, RegistryError};

/// Why there is no manifest that a trusted key vouches for.
#[derive(Debug)]
pub enum Unvouched {
    /// A no, or bytes that are not what was signed.
    Failed(Failure),
    /// What the registry said instead of an answer.
    Registry(RegistryError),
}

impl From<RegistryError> for Unvouched {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<Unvouched> for Failure {
    fn from(why: Unvouched) -> Self {
        match why {
            Unvouched::Failed(failure) => failure,
            Unvouched::Registry(error) => error.into(),
        }
    }
}

/// Finds a signature for what `source` resolved to; where that is an index, for the index or for the
/// one image in it that is for `platform` (`amd64`). Returns what was received where it is that which
/// was signed.
///
/// # Errors
/// [`Unvouched`].
pub async fn vouch(
    registry: &Registry,
    source: &Reference,
    platform: &str,
    roots: &TrustRoots,
    pulled: Pulled,
) -> Result<(Verified<Digest>, Option<Pulled>), Unvouched> {
    let repository = &source.repository;
    let index = match Document::parse(&pulled.bytes) {
        Ok(Document::Index(index)) => Some(index),
        // What cannot be read is told only once it is known to be signed.
        Ok(Document::Manifest(_)) | Err(_) => None,
    };
    let answer = registry.signed(repository, pulled.digest, roots).await;
    let (answer, subject) = match (answer, index) {
        (Signed::No(reasons), Some(index)) => match index.select(platform) {
            Some(entry) => (registry.signed(repository, entry.digest, roots).await, entry.digest),
            None => (Signed::No(reasons), pulled.digest),
        },
        (answer, _) => (answer, pulled.digest),
    };
    match answer {
        Signed::Yes(verified) => Ok((verified, Some(pulled).filter(|it| it.digest == subject))),
        Signed::No(reasons) => Err(Unvouched::Failed(not_signed(source, subject, &reasons))),
        Signed::CannotKnow(error) => Err(Unvouched::Registry(error)),
    }
}

/// The manifest for `platform` that has, or is named by what has, the digest `vouched` for; `pulled`
/// where it was received already.
///
/// # Errors
/// [`Unvouched`].
pub async fn manifest(
    registry: &Registry,
    source: &Reference,
    platform: &str,
    mut vouched: Verified<Digest>,
    pulled: Option<Pulled>,
) -> Result<(Digest, Verified<Manifest>), Unvouched> {
    let mut bytes = match pulled {
        Some(pulled) => pulled.bytes,
        None => registry.manifest(&source.at(*vouched.get())).await?.bytes,
    };
    let document = vouched.document(&bytes).map_err(|error| corrupt(source, &error))?;
    if let Document::Index(_) = document.get() {
        vouched = document.image(platform).ok_or_else(|| {
            let message = format!("{source}: no single image for {platform} in it");
            Unvouched::Failed(Failure::refused("arch", message))
        })?;
        bytes = registry.manifest(&source.at(*vouched.get())).await?.bytes;
    }
    let manifest = vouched.manifest(&bytes).map_err(|error| corrupt(source, &error))?;
    Ok((*vouched.get(), manifest))
}

fn corrupt(source: &Reference, error: &dyn std::fmt::Display) -> Unvouched {
    let message = format!("{source}: manifest: {error}");
    Unvouched::Failed(Failure::new(Class::Corrupt, "manifest", message))
}

fn not_signed(source: &Reference, digest: Digest, reasons: &[NotVouched]) -> Failure {
    let kind = reasons.iter().map(|reason| match reason {
        NotVouched::WrongPurpose(_) => (0, "wrong-purpose"),
        NotVouched::WrongSubject => (1, "wrong-subject"),
        NotVouched::UnknownKey => (2, "wrong-key"),
        NotVouched::Unsupported(_) => (3, "unsupported-signature"),
        NotVouched::Malformed(_) | NotVouched::TooLarge(_) => (4, "malformed-signature"),
    });
    match kind.min() {
        None => Failure::refused(
            "unsigned",
            format!(
                "{source} ({digest}) has no signature; sign it with `cosign sign --key`, or, if \
                 it was copied from another registry, copy the signature too with `oras cp -r`"
            ),
        ),
        Some((_, kind)) => {
            let mut told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            told.sort();
            told.dedup();
            told.truncate(3);
            let told = told.join("; ");
            Failure::refused(kind, format!("{source} ({digest}) is not accepted: {told}"))
        }
    }
}
