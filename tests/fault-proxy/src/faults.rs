//! The switches.

use serde::Deserialize;

/// What goes wrong. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How ranges of blobs are answered.
    pub ranges: Ranges,
    /// Blob answers break off after so many bytes.
    pub cut_after: Option<u64>,
    /// How many blob answers break off; 0 is all.
    pub cuts: u32,
    /// Where they would break off they fall silent instead, and the connection stays.
    pub stalls: bool,
    /// What login the registry wants before it answers.
    pub login: Login,
    /// Where blob reads are sent.
    pub redirect: Redirect,
    /// Redirects within the registry before the one that counts.
    pub hops: u32,
    /// What is answered instead of asking the registry.
    pub refusal: Option<Refusal>,
    /// When manifests and small blobs are sent gzip-encoded.
    pub gzip: Gzip,
    /// What is done to `Docker-Content-Digest`.
    pub digest_header: DigestHeader,
    /// How the referrers API is answered.
    pub referrers: Referrers,
    /// Unrelated entries, of manifests that are not there, before the served referrers.
    pub crowd: usize,
    /// Answers come without `Content-Length`.
    pub chunked: bool,
    /// Manifests get so many bytes of white space behind them.
    pub pad_manifest: usize,
    /// One byte in the middle of each blob is altered.
    pub alter_blob: bool,
    /// One byte of each image manifest, asked for by tag, is altered.
    pub alter_manifest: bool,
    /// Blobs end so many bytes early, with a matching `Content-Length`.
    pub truncate_blob: u64,
}

/// How a range of a blob is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ranges {
    /// As the registry does.
    #[default]
    Honest,
    /// Without `Accept-Ranges`.
    StripAcceptRanges,
    /// 416 to `bytes=N-`.
    Refuse416Open,
    /// 416 to any range.
    Refuse416,
    /// 200 with everything.
    Whole200,
    /// 206 for a range a thousand bytes further, saying so.
    Other,
    /// 206 for a range, saying so, whether one was asked for or not.
    OtherAlways,
    /// 206 for the asked range, but `Content-Range` names another.
    WrongHeader,
    /// 206 without `Content-Range`.
    NoHeader,
    /// 206 from a thousand bytes earlier, saying so.
    Earlier,
    /// 206 for half of the asked range, saying so.
    Half,
    /// 206 as multipart/byteranges.
    Multipart,
}

/// What login is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Login {
    /// None.
    #[default]
    None,
    /// A user name and a password, any.
    Basic,
    /// A token, which `/token` gives to anybody.
    Bearer,
}

/// When something is sent gzip-encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gzip {
    /// Never.
    #[default]
    Never,
    /// Where the client takes it, as nginx does.
    Accepted,
    /// Whatever was asked for.
    Always,
}

/// Where somebody who reads a blob, or looks whether it is there, is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redirect {
    /// Nowhere.
    #[default]
    None,
    /// 307 to the storage server, which answers 400 to a login and to HEAD.
    Storage,
    /// 307 to the same address, for ever.
    Loop,
    /// 307 to 169.254.169.254.
    LinkLocal,
    /// 307 to a name that the system looks up as 169.254.169.254.
    LinkLocalName,
    /// 307 to the storage server, which says 403 to every second request: a signature that ran out.
    Expiring,
}

/// An answer that the registry never saw the question to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Only for paths that contain this; empty is all.
    #[serde(default)]
    pub path: String,
    /// The status, such as 429 or 503.
    pub status: u16,
    /// `Retry-After`.
    #[serde(default)]
    pub retry_after: Option<String>,
    /// A web page instead of JSON.
    #[serde(default)]
    pub html: bool,
    /// How often; 0 is for ever.
    #[serde(default)]
    pub times: u32,
}

/// What is done to `Docker-Content-Digest`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestHeader {
    /// Left.
    #[default]
    Honest,
    /// Removed.
    Missing,
    /// Replaced by that of other bytes.
    Wrong,
}

/// How the referrers API is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Referrers {
    /// As the registry does.
    #[default]
    Honest,
    /// From what was pushed through this proxy.
    Served,
    /// 200 with an empty index.
    Empty,
    /// 200 with something that is no JSON.
    NotJson,
    /// 200 with a web page.
    Html,
}
