//! Images of services: pulled by digest, verified as releases are, unpacked onto the state partition.
//!
//! Nothing is started here. What lies in [`os_init::services::images`] is whole: not a byte of a layer
//! is unpacked before all of it has the digest that was signed for, and a pull that fails leaves
//! nothing that counts.
//!
//! # Reading order
//! `pull` is the whole; [`layer`] unpacks one layer.

pub mod layer;
#[cfg(feature = "network")]
pub mod pull;

#[cfg(feature = "network")]
pub use pull::{Pulled, Source, Tell, pull};
