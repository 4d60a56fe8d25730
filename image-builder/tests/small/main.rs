//! Whole builds of a small release, from an archive in a folder: everything is real but the two
//! programs of erofs-utils, for which a script stands in, so that no network is needed.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

mod built;
mod inputs;
mod taken_apart;
