//! The updater's own code against a real registry (`docker-registry`), a proxy in front of it that
//! does what registries in the field do wrong, and a machine whose slots are files.
//!
//! # Reading order
//! [`support`] is what all share; each other module is one family of cases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

mod answers;
mod apply;
mod daemon;
mod digests;
mod ranges;
mod redirects;
mod referrers;
mod service_images;
mod slot;
mod stock_signatures;
mod support;
