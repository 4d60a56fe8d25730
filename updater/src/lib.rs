//! Pull, verify, write, flip: the updater of Bascule.
//!
//! # Reading order
//! [`failure`] says what can go wrong; [`site`] and [`settings`] say where we are and what is
//! wanted; [`policy`] and [`schedule`] are the rules; [`registry`] talks to registries;
//! [`engine`] installs one release; [`outcome`] and [`history`] tell what became of it; [`daemon`]
//! is `osupdated`, [`cli`] is `osupdate`, and [`wire`] is what they say to each other; [`clock`]
//! writes dates.

#[cfg(feature = "network")]
pub mod cli;
pub mod clock;
#[cfg(feature = "network")]
pub mod daemon;
pub mod engine;
pub mod failure;
pub mod history;
pub mod outcome;
pub mod policy;
pub mod registry;
pub mod schedule;
pub mod self_test;
pub mod service_image;
pub mod settings;
pub mod site;
#[cfg(feature = "network")]
pub mod vouch;
#[cfg(feature = "network")]
pub mod wire;
