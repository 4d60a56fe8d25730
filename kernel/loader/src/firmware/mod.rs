//! Everything that talks to the firmware, and all `unsafe` of the loader.
//!
//! Reading order: [`start`] (what happens), [`own_disk`], [`block`], [`image`]; the rest is small.

pub mod block;
pub mod chance;
pub mod chipset;
pub mod console;
pub mod esp;
pub mod hand;
pub mod image;
pub mod memory;
pub mod own_disk;
pub mod start;
pub mod strings;
pub mod table;
pub mod variable;
pub mod watchdog;
