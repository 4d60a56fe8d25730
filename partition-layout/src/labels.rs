//! The labels of a release image's config: facts about the slot.
//!
//! | label | value |
//! |---|---|
//! | `org.bascule.format` | `1` |
//! | `org.bascule.product` | which OS this is |
//! | `org.bascule.kind` | `os` |
//! | `org.bascule.arch` | `x86_64` |
//! | `org.bascule.release` | release number, decimal u64 |
//! | `org.bascule.secver` | security version, decimal u32 |
//! | `org.bascule.min-from` | lowest release that may update to it, decimal u64 |
//! | `org.bascule.requires` | JSON list of requirements by name |
//! | `org.bascule.version` | version for people |
//! | `org.bascule.slot.size` | size of the slot image in bytes, decimal u64 |
//! | `org.bascule.slot.sha256` | SHA-256 of the slot image, hexadecimal |
//! | `org.bascule.slot.root-hash` | verity root, hexadecimal |
//!
//! A requirement that a machine does not know is refused by name; other unknown labels are passed
//! over.

use crate::verity::{hex, unhex};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// The format that this release reads and writes.
pub const FORMAT: &str = "1";
/// The kind of an OS image.
pub const KIND_OS: &str = "os";
/// Layer annotation: uncompressed frame size, decimal.
pub const FRAME_SIZE: &str = "org.bascule.frame.size";
/// Layer annotation: compressed sizes of the slot frames.
pub const FRAMES: &str = "org.bascule.frames";
/// Layer annotation: compressed size of the frame with the tar header, decimal.
pub const FRAMES_HEAD: &str = "org.bascule.frames.head";
/// Layer annotation: compressed size of the closing frame, decimal.
pub const FRAMES_TAIL: &str = "org.bascule.frames.tail";
/// Layer annotation: the file's name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Requirements that this version meets. None exist yet.
pub const KNOWN_REQUIREMENTS: [&str; 0] = [];
const PREFIX: &str = "org.bascule.";
const REQUIRES_MAX: usize = 32;

/// What the labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLabels {
    /// Which OS this is.
    pub product: String,
    /// `os`, or a kind of a later version.
    pub kind: String,
    /// Architecture.
    pub arch: String,
    /// Release number.
    pub release: u64,
    /// Security version.
    pub secver: u32,
    /// Lowest release that may update to it.
    pub min_from: u64,
    /// Requirements by name.
    pub requires: Vec<String>,
    /// Version for people.
    pub version: String,
    /// Size of the slot image in bytes.
    pub slot_size: u64,
    /// SHA-256 of the slot image.
    pub slot_sha256: [u8; 32],
    /// Root hash of the verity tree.
    pub root_hash: [u8; 32],
}

/// Why labels are not those of a release of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// A label that every release has is missing.
    Missing(&'static str),
    /// A label's value is malformed.
    Value(&'static str),
    /// A format of a later version.
    Format(String),
}

impl core::fmt::Display for Invalid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "the label {PREFIX}{key} is missing"),
            Self::Value(key) => write!(f, "the label {PREFIX}{key} is malformed"),
            Self::Format(format) => write!(f, "format {format:?} is not known to this version"),
        }
    }
}

impl ImageLabels {
    /// All labels, for the image's config.
    #[must_use]
    pub fn encode(&self) -> BTreeMap<String, String> {
        let requires = serde_json::to_string(&self.requires).unwrap_or_default();
        [
            ("format", FORMAT.to_string()),
            ("product", self.product.clone()),
            ("kind", self.kind.clone()),
            ("arch", self.arch.clone()),
            ("release", self.release.to_string()),
            ("secver", self.secver.to_string()),
            ("min-from", self.min_from.to_string()),
            ("requires", requires),
            ("version", self.version.clone()),
            ("slot.size", self.slot_size.to_string()),
            ("slot.sha256", hex(&self.slot_sha256)),
            ("slot.root-hash", hex(&self.root_hash)),
        ]
        .into_iter()
        .map(|(key, value)| (alloc::format!("{PREFIX}{key}"), value))
        .collect()
    }

    /// Reads labels.
    ///
    /// # Errors
    /// [`Invalid`], with the label's name.
    pub fn decode(labels: &BTreeMap<String, String>) -> Result<Self, Invalid> {
        let find = |key: &'static str| {
            labels.get(&alloc::format!("{PREFIX}{key}")).ok_or(Invalid::Missing(key))
        };
        let format = find("format")?;
        if format != FORMAT {
            return Err(Invalid::Format(format.chars().take(16).collect()));
        }
        let text = |key| {
            let value = find(key)?;
            let plain = (1..=64).contains(&value.len()) && !value.chars().any(char::is_control);
            plain.then(|| value.clone()).ok_or(Invalid::Value(key))
        };
        let number = |key| {
            let value = find(key)?;
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| value.parse::<u64>().ok()).flatten().ok_or(Invalid::Value(key))
        };
        let hash = |key| unhex(find(key)?).ok_or(Invalid::Value(key));
        let requires: Vec<String> = serde_json::from_str(find("requires")?)
            .ok()
            .filter(|list: &Vec<String>| list.len() <= REQUIRES_MAX)
            .ok_or(Invalid::Value("requires"))?;
        Ok(Self {
            product: text("product")?,
            kind: text("kind")?,
            arch: text("arch")?,
            release: number("release")?,
            secver: number("secver")?.try_into().map_err(|_| Invalid::Value("secver"))?,
            min_from: number("min-from")?,
            requires,
            version: text("version")?,
            slot_size: number("slot.size")?,
            slot_sha256: hash("slot.sha256")?,
            root_hash: hash("slot.root-hash")?,
        })
    }

    /// The first requirement that this version does not meet.
    #[must_use]
    pub fn unmet_requirement(&self) -> Option<&str> {
        self.requires.iter().map(String::as_str).find(|name| !KNOWN_REQUIREMENTS.contains(name))
    }
}
