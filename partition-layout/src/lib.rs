//! What the bytes on a Bascule disk mean.
//!
//! Pure: no clock, no disk, no printing, no `unsafe`. The loader, os-init, the updater, the builder
//! and the tests all use this one crate, so that what is tested is what runs.
//!
//! Reading order: [`slot`], [`layout`], [`record`], [`boot_state`] and [`loader_plan`] (the slot
//! rules), [`places`] (where the record lies and how it is stored), [`slot_image`], [`verity`],
//! [`frames`], [`labels`], [`boot_variable`], [`gpt`], [`fresh`], [`disk`].
#![no_std]

extern crate alloc;

pub mod boot_state;
pub mod boot_variable;
pub mod bytes;
pub mod disk;
pub mod frames;
pub mod fresh;
pub mod gpt;
pub mod guid;
pub mod labels;
pub mod layout;
pub mod loader_plan;
pub mod places;
pub mod record;
pub mod slot;
pub mod slot_image;
pub mod tlv;
pub mod verity;
