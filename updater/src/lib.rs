//! Pull, verify, write, flip: the updater of Bascule.
//!
//! # Reading order
//! [`failure`] says what can go wrong; [`site`] and [`settings`] say where we are and what is
//! wanted; [`policy`] and [`schedule`] are the rules; [`registry`] talks to registries;
//! [`engine`] installs one release.

pub mod engine;
pub mod failure;
pub mod policy;
pub mod registry;
pub mod schedule;
pub mod settings;
pub mod site;
