//! From a spec and a lock file to a signed container image and a disk image. Needs no root.
//!
//! Reading order: [`spec`] (what an image is made of), [`lock`] and [`archive`] (which Debian
//! packages, and where they come from), [`package`] (unpacking them), [`tree`] (the root),
//! [`system`] (what is ours in it), [`kernel`], [`erofs`], [`initrd`], [`uki`], [`slot`] (the slot
//! image), [`compress`] and [`oci`] (the container image), [`disk`] (a machine's disk), [`build`]
//! (all in order).

pub mod archive;
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
pub mod push;
pub mod run;
pub mod secure_boot;
pub mod slot;
pub mod spec;
pub mod system;
pub mod tree;
pub mod uki;
