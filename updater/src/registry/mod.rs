//! A registry client that survives registries.
//!
//! Every question has three answers: yes, no, and *cannot know*. A registry that answers 429, 5xx,
//! HTML or nothing has not said "no". Digests are computed from the bytes received; headers are
//! only compared with them. Sizes, redirects, retries and waits are bounded.
//!
//! # Reading order
//! [`reference`] names an image; [`headers`] are the pure rules for what registries write into
//! headers; [`error`] holds the answers; [`names`] looks hosts up; [`transport`] makes one request in
//! bounded time; [`session`] adds tokens, redirects and retries; [`pull`] and [`blob`] read; [`signatures`]
//! finds what may be a signature; [`push`] writes, for the builder.

#[cfg(feature = "network")]
pub mod blob;
pub mod error;
pub mod headers;
#[cfg(feature = "network")]
pub mod names;
#[cfg(feature = "network")]
pub mod pull;
#[cfg(feature = "network")]
pub mod push;
pub mod reference;
#[cfg(feature = "network")]
pub mod session;
#[cfg(feature = "network")]
pub mod signatures;
#[cfg(feature = "network")]
pub mod transport;

pub use error::RegistryError;
pub use reference::Reference;
#[cfg(feature = "network")]
pub use session::{Access, Registry};
