//! Power cuts on a real machine's disk: what `cargo xtask prove` has of [`crate`].

pub mod recording;
