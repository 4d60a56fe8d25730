//! From a spec and a lock file to a signed container image and a disk image. Needs no root.
//!
//! Reading order: [`lock`] (which Debian packages), [`initrd`], [`uki`], [`oci`] (the container
//! image), [`disk`] (a machine's disk).

pub mod disk;
pub mod initrd;
pub mod lock;
pub mod oci;
pub mod push;
pub mod run;
pub mod uki;
