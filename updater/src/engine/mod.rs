//! Installing one release: what is done in which order, and the hands that do it.
//!
//! # Reading order
//! [`plan`] decides (pure); [`install`] carries out what it says; [`slot`] writes and reads the
//! slot; [`checkpoint`] remembers how far the writing came.

pub mod checkpoint;
#[cfg(feature = "network")]
pub mod install;
pub mod plan;
pub mod slot;
