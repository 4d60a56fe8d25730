//! Sigstore bundle v0.3 with a DSSE envelope: the layout that cosign 3 writes.
//!
//! ```text
//! { "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
//!   "verificationMaterial": { "publicKey": { "hint": … }, "tlogEntries": […] },
//!   "dsseEnvelope": { "payload": base64, "payloadType": "application/vnd.in-toto+json",
//!                     "signatures": [ { "sig": base64 } ] } }
//! ```
//!
//! Of the container only what is needed to check the signature is read before the check: the
//! payload, its type and the signatures. Hints and log entries are never looked at: trust is in
//! our own keys. The statement inside is parsed only after a trusted key has signed it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::oci::short;
use crate::trust::{NotVouched, TrustRoots};

/// The bundle's media type, as cosign 3 writes it.
pub const MEDIA_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The same version in the older spelling.
const MEDIA_BUNDLE_OLD_SPELLING: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
/// The type of the payload inside the envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The only purpose that makes an image installable.
pub const PURPOSE_IMAGE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Largest bundle taken. One with a log entry has about 10 KiB.
pub const BUNDLE_BYTES_MAX: usize = 256 << 10;
/// Most signatures tried in one envelope.
const SIGNATURES_MAX: usize = 16;
/// Most subjects looked at in one statement.
const SUBJECTS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
    #[serde(default)]
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    #[serde(default)]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    #[serde(default)]
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: std::collections::BTreeMap<String, String>,
}

/// Whether `bundle` is a signature by one of `roots` that vouches for `subject` as an image.
/// Returns the name of the key.
///
/// # Errors
/// One of [`NotVouched`]; nothing of the container may be used then.
pub fn check(bundle: &[u8], subject: Digest, roots: &TrustRoots) -> Result<String, NotVouched> {
    if bundle.len() > BUNDLE_BYTES_MAX {
        return Err(NotVouched::TooLarge(BUNDLE_BYTES_MAX));
    }
    let bundle: Bundle = parse(bundle)?;
    if bundle.media_type != MEDIA_BUNDLE && bundle.media_type != MEDIA_BUNDLE_OLD_SPELLING {
        let named: String = bundle.media_type.chars().take(80).collect();
        return Err(NotVouched::Unsupported(format!("bundle {named:?}")));
    }
    let envelope = match (bundle.dsse_envelope, bundle.message_signature) {
        (Some(envelope), None) => envelope,
        (Some(_), Some(_)) => {
            return Err(NotVouched::Malformed("both dsseEnvelope and messageSignature".into()));
        }
        // A bare signature over a blob does not say what it was made for, so anything that its
        // key ever signed as a blob would be an image.
        (None, Some(_)) => return Err(NotVouched::Unsupported("messageSignature".into())),
        (None, None) => return Err(NotVouched::Malformed("no dsseEnvelope".into())),
    };
    let (payload, who) = open(&envelope, roots)?;
    check_statement(&payload, subject)?;
    Ok(who)
}

/// The payload of an envelope that one of `roots` signed, and who did.
fn open(envelope: &Envelope, roots: &TrustRoots) -> Result<(Vec<u8>, String), NotVouched> {
    if envelope.payload_type != PAYLOAD_TYPE {
        let named: String = envelope.payload_type.chars().take(80).collect();
        return Err(NotVouched::Unsupported(format!("payload {named:?}")));
    }
    let payload = decode(&envelope.payload, "payload")?;
    let message = pre_authentication(&envelope.payload_type, &payload);
    for signature in envelope.signatures.iter().take(SIGNATURES_MAX) {
        let signature = decode(&signature.sig, "sig")?;
        if let Some(who) = roots.who_signed(&message, &signature) {
            return Ok((payload, who.to_owned()));
        }
    }
    Err(NotVouched::UnknownKey)
}

/// Purpose and subject of a payload whose signature has been checked.
fn check_statement(payload: &[u8], subject: Digest) -> Result<(), NotVouched> {
    let statement: Statement = parse(payload)?;
    // Purpose first: attestations of older statement types are told as what they are.
    if statement.predicate_type != PURPOSE_IMAGE {
        return Err(NotVouched::WrongPurpose(statement.predicate_type.chars().take(80).collect()));
    }
    if statement.kind != STATEMENT_TYPE {
        let named: String = statement.kind.chars().take(80).collect();
        return Err(NotVouched::Unsupported(format!("statement {named:?}")));
    }
    let named = statement.subject.iter().take(SUBJECTS_MAX);
    let fits = |named: &Subject| {
        named.digest.get("sha256").and_then(|hex| Digest::from_hex(hex)) == Some(subject)
    };
    if named.into_iter().any(fits) { Ok(()) } else { Err(NotVouched::WrongSubject) }
}

/// What is really signed in a DSSE envelope: type and payload, each with its length, so that no
/// byte can move from one to the other.
pub(crate) fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    let mut message = head.into_bytes();
    message.extend_from_slice(payload);
    message
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, NotVouched> {
    serde_json::from_slice(bytes).map_err(|error| NotVouched::Malformed(short(&error)))
}

fn decode(text: &str, place: &str) -> Result<Vec<u8>, NotVouched> {
    STANDARD.decode(text).map_err(|_| NotVouched::Malformed(format!("{place} is not base64")))
}
