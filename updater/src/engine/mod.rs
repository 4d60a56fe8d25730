//! Installing one release: what is done in which order, and the hands that do it.
//!
//! # Reading order
//! [`plan`] decides (pure); [`install`] carries out what it says, with [`perform`] for slot and
//! record; [`slot`] writes and reads the slot; [`checkpoint`] remembers how far the writing came.

pub mod checkpoint;
#[cfg(feature = "network")]
pub mod install;
pub mod perform;
pub mod plan;
pub mod slot;
