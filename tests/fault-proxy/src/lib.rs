//! A proxy before a registry that does what registries and proxies in the field do wrong.
//!
//! Each fault is one switch, so that a test says what it is about. With all switches at rest it is
//! an honest proxy. It also gives a registry without the referrers API one, from what is pushed
//! through it, and plays the storage server that blobs are redirected to.
//!
//! # Reading order
//! [`faults`] lists the switches; [`proxy`] listens; [`answer`] makes one answer; [`registry`]
//! starts a real registry to put behind it.

pub mod answer;
pub mod faults;
pub mod proxy;
pub mod referrers;
pub mod registry;

pub use faults::{DigestHeader, Faults, Gzip, Login, Ranges, Redirect, Referrers, Refusal};
pub use proxy::{Proxy, Seen};
