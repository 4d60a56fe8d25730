//! Simple signing: cosign's older layout, a `.sig` tag whose layers are signed payloads.
//!
//! The payload is `{"critical":{"identity":{…},"image":{"docker-manifest-digest":"sha256:…"},
//! "type":"cosign container image signature"},"optional":…}`; the signature over its bytes is an
//! annotation of the layer. The identity inside is not compared: a mirror has another name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::digest::Digest;
use crate::oci::{Descriptor, short};
use crate::trust::{NotVouched, TrustRoots};

/// The media type of a payload layer.
pub const MEDIA_SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The layer annotation that holds the signature, base64 of its DER form.
pub const ANNOTATION_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The payload's type: the purpose.
pub const PURPOSE_IMAGE: &str = "cosign container image signature";
/// Largest payload taken; ours has 250 bytes, user annotations make some longer.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    purpose: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Whether `payload`, with the signature that `layer` carries, is a signature by one of `roots`
/// that vouches for `subject` as an image. Returns the name of the key.
///
/// # Errors
/// One of [`NotVouched`]; nothing of the payload may be used then.
pub fn check(
    layer: &Descriptor,
    payload: &[u8],
    subject: Digest,
    roots: &TrustRoots,
) -> Result<String, NotVouched> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(NotVouched::TooLarge(PAYLOAD_BYTES_MAX));
    }
    if Digest::of(payload) != layer.digest {
        return Err(NotVouched::Malformed("payload is not the layer's".into()));
    }
    let signature = layer
        .annotations
        .get(ANNOTATION_SIGNATURE)
        .ok_or_else(|| NotVouched::Malformed(format!("layer without {ANNOTATION_SIGNATURE}")))?;
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| NotVouched::Malformed("signature is not base64".into()))?;
    let who = roots.who_signed(payload, &signature).ok_or(NotVouched::UnknownKey)?;
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|error| NotVouched::Malformed(short(&error)))?;
    if payload.critical.purpose != PURPOSE_IMAGE {
        return Err(NotVouched::WrongPurpose(payload.critical.purpose.chars().take(80).collect()));
    }
    if Digest::parse(&payload.critical.image.digest) != Some(subject) {
        return Err(NotVouched::WrongSubject);
    }
    Ok(who.to_owned())
}
