//! OCI manifests, indexes and image configs, parsed from the raw bytes that were hashed.
//!
//! Only what an update needs is read; unknown fields are ignored, since registries and copying
//! tools add some. Bytes are never encoded again: a digest is always that of what was received.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// An image manifest.
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image index: several manifests, one an architecture; also the list of referrers.
pub const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image config.
pub const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer: a tar, zstd-compressed.
pub const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The config of things that need none: the two bytes `{}`.
pub const MEDIA_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker's own spelling of a manifest, met after some copies; told apart to say so.
pub const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Largest manifest or index taken: the limit that registries and the OCI spec agree on.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Largest image config taken; ours has about 2 KiB.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Most layers or index entries looked at; more is not an update image.
const ENTRIES_MAX: usize = 4096;

/// Why bytes are not the document that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciError {
    /// Larger than the bound of its kind, in bytes.
    TooLarge(usize),
    /// Not JSON, or a field has the wrong type; the text names the place.
    Malformed(String),
    /// A document of another kind; holds the media type that it names.
    WrongKind(String),
}

impl core::fmt::Display for OciError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            OciError::TooLarge(bound) => write!(f, "larger than {bound} bytes"),
            OciError::Malformed(what) => write!(f, "malformed: {what}"),
            OciError::WrongKind(media) => write!(f, "is of kind {media:?}"),
        }
    }
}

impl std::error::Error for OciError {}

/// A reference to some bytes by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their sha256.
    pub digest: Digest,
    /// Their length in bytes.
    pub size: u64,
    /// In an index of referrers: what the referrer is for. Often missing or wrong, so never
    /// filtered by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// In an index: the machine that the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free facts about the bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The machine that an image is for, in Go's words (`amd64`, `linux`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
}

/// An image manifest: one config and its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own kind; may be missing, then it is told by its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the manifest is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layer blobs, in order.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// For a referrer: the manifest that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free facts about the whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses the raw bytes of a manifest.
    ///
    /// # Errors
    /// Too large, malformed, or an index or another kind of document.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, OciError> {
        let (_, value) = document(bytes, &[MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST])?;
        let manifest: Manifest = from_bytes(value)?;
        if manifest.schema_version != 2 {
            return Err(OciError::WrongKind(format!("schema {}", manifest.schema_version)));
        }
        if manifest.layers.len() > ENTRIES_MAX {
            return Err(OciError::TooLarge(ENTRIES_MAX));
        }
        Ok(manifest)
    }
}

/// An image index: manifests by platform, or the referrers of one digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own kind; may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests listed, in order.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Parses the raw bytes of an index.
    ///
    /// # Errors
    /// Too large, malformed, or not an index.
    pub fn parse(bytes: &[u8]) -> Result<Index, OciError> {
        let (_, value) = document(bytes, &[MEDIA_INDEX])?;
        let index: Index = from_bytes(value)?;
        if index.manifests.len() > ENTRIES_MAX {
            return Err(OciError::TooLarge(ENTRIES_MAX));
        }
        Ok(index)
    }

    /// The one manifest for `architecture` (`amd64`) and Linux; `None` if none or several fit.
    pub fn select(&self, architecture: &str) -> Option<&Descriptor> {
        let mut fitting = self.manifests.iter().filter(|entry| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os == "linux" && platform.architecture == architecture
            })
        });
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

/// What a tag resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image.
    Manifest(Box<Manifest>),
    /// A choice of images.
    Index(Index),
}

impl Document {
    /// Parses bytes that may be either.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Document, OciError> {
        match Index::parse(bytes) {
            Ok(index) => Ok(Document::Index(index)),
            Err(OciError::WrongKind(_)) => {
                Manifest::parse(bytes).map(|manifest| Document::Manifest(Box::new(manifest)))
            }
            Err(error) => Err(error),
        }
    }
}

/// The facts of an image config that we read: its platform and labels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// The part that holds the labels.
    #[serde(default)]
    config: Option<ConfigSection>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ConfigSection {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl ImageConfig {
    /// Parses the raw bytes of an image config.
    ///
    /// # Errors
    /// Too large or malformed.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, OciError> {
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(OciError::TooLarge(CONFIG_BYTES_MAX));
        }
        from_bytes(bytes)
    }

    /// The labels, empty where there are none.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.config.as_ref().and_then(|section| section.labels.clone()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    #[serde(default, borrow)]
    media_type: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

/// Checks size and kind. A document that names no kind is told by its shape, as the OCI spec
/// allows; one that has the shape of both is refused, since two readers would read two things.
fn document<'a>(bytes: &'a [u8], kinds: &[&str]) -> Result<(String, &'a [u8]), OciError> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(OciError::TooLarge(MANIFEST_BYTES_MAX));
    }
    let shape: Shape<'_> = from_bytes(bytes)?;
    let told = match (&shape.manifests, &shape.config) {
        (Some(_), None) => MEDIA_INDEX,
        (None, Some(_)) => MEDIA_MANIFEST,
        _ => return Err(OciError::WrongKind("neither manifest nor index".into())),
    };
    let media = shape.media_type.map_or_else(|| told.to_owned(), |media| media.into_owned());
    let fits = kinds.contains(&media.as_str()) && (media == MEDIA_INDEX) == (told == MEDIA_INDEX);
    if fits { Ok((media, bytes)) } else { Err(OciError::WrongKind(media)) }
}

fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Malformed(short(&error)))
}

/// The parser's words, bounded: they may quote what a stranger wrote.
pub(crate) fn short(error: &serde_json::Error) -> String {
    error.to_string().chars().filter(|c| !c.is_control()).take(160).collect()
}
