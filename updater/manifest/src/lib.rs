//! Release images as signed container images, and nothing else: bytes in, facts out.
//!
//! Pure: no network, no disk, no clock, no randomness. Every function that takes foreign bytes is
//! bounded in size and count and answers an error instead of panicking.
//!
//! # Reading order
//! 1. [`digest`]: the sha256 name of everything.
//! 2. [`oci`]: manifests, indexes and configs, parsed from their raw bytes.
//! 3. [`trust`]: the public keys that may sign, and what a signature check answers.
//! 4. [`bundle`], [`simple_signing`]: the two containers in which cosign puts a signature.
//! 5. [`verified`]: the only door from bytes to facts, opened by a signature.
//! 6. [`release`]: what a verified image says of itself.
//! 7. [`sign`]: the other direction, for the builder.

pub mod bundle;
pub mod digest;
pub mod oci;
pub mod release;
pub mod sign;
pub mod simple_signing;
pub mod trust;
pub mod verified;
