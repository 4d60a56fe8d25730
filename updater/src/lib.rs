//! Pull, verify, write, flip: the updater of Bascule.
//!
//! # Reading order
//! [`registry`] talks to registries.

pub mod registry;
