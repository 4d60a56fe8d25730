//! From a spec and a lock file to a signed container image and a disk image. Needs no root.
//!
//! Reading order: [`spec`] (what an image is made of), [`lock`] and [`archive`] (which Debian
//! packages, and where they come from), [`package`] (unpacking them), [`tree`] (the root),
//! `system` (what is ours in it), [`libraries`], [`kernel`], [`erofs`], [`initrd`], [`uki`] and
//! [`pe`], [`secure_boot`], [`slot`] (the slot image), [`compress`] and [`oci`] (the container
//! image), [`disk`] (a machine's disk), `build` (all in order), `push`; [`layout`] and [`extract`]
//! (the way back).
//!
//! Without the feature `release`, which is on by default, what needs the updater's registry client
//! is left out: the fuzz targets are about the parsers.

pub mod archive;
#[cfg(feature = "release")]
pub mod build;
pub mod compress;
pub mod disk;
pub mod erofs;
pub mod extract;
pub mod initrd;
pub mod kernel;
pub mod layout;
pub mod libraries;
pub mod lock;
pub mod oci;
pub mod package;
pub mod pattern;
pub mod pe;
pub mod progress;
#[cfg(feature = "release")]
pub mod push;
pub mod run;
pub mod secure_boot;
pub mod slot;
pub mod spec;
#[cfg(feature = "release")]
pub mod system;
pub mod tree;
pub mod uki;
