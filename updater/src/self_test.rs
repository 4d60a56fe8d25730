//! `osupdated --self-test`: could this release install its successor?
//!
//! Part of the health gate, so it needs neither network nor time, and changes nothing.

use update_manifest::bundle;
use update_manifest::digest::Digest;
use update_manifest::trust::{NotVouched, TrustRoots, TrustedKey};

use crate::failure::{Class, Failure};
use crate::site::Site;

const VECTOR_KEY: &str = include_str!("self_test/vector.pub");
/// The key of somebody else; the private half was thrown away.
const STRANGER_KEY: &str = include_str!("self_test/stranger.pub");
const VECTOR_BUNDLE: &[u8] = include_bytes!("self_test/vector.bundle.json");
const VECTOR_IMAGE: &[u8] = b"bascule self-test image\n";

/// Opens the other slot for writing, loads the trust roots, verifies a built-in signature.
///
/// # Errors
/// The first thing that does not work.
pub fn run(site: &Site) -> Result<(), Failure> {
    verify_vector()?;
    if site.roots.keys().is_empty() {
        return Err(Failure::new(
            Class::System,
            "trust",
            "no key that may sign a release was found",
        ));
    }
    let device = site.device(site.running.other());
    kernel_abi::FileDisk::open(&device, true).map_err(|error| {
        let message = format!("open {} for writing: {error}", device.display());
        Failure::new(Class::Disk, "disk", message)
    })?;
    Ok(())
}

/// Whether this build can tell a good signature from a bad one.
///
/// # Errors
/// When it cannot.
pub fn verify_vector() -> Result<(), Failure> {
    let broken = |what: &str| Failure::new(Class::System, "self-test", what.to_owned());
    let roots = |pem| {
        let key = TrustedKey::from_pem("vector", pem);
        let key = key.ok_or_else(|| broken("a built-in key is not read"));
        key.map(|key| TrustRoots::new([key]))
    };
    let (signer, stranger) = (roots(VECTOR_KEY)?, roots(STRANGER_KEY)?);
    let image = Digest::of(VECTOR_IMAGE);
    if bundle::check(VECTOR_BUNDLE, image, &signer).is_err() {
        return Err(broken("the built-in signature is not accepted"));
    }
    let another = Digest::of(b"another image");
    if bundle::check(VECTOR_BUNDLE, another, &signer) != Err(NotVouched::WrongSubject) {
        return Err(broken("a signature of another image is accepted"));
    }
    if bundle::check(VECTOR_BUNDLE, image, &stranger) != Err(NotVouched::UnknownKey) {
        return Err(broken("a signature by another key is accepted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_built_in_vector_verifies() {
        super::verify_vector().unwrap();
    }
}
