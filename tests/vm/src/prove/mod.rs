//! Power cuts on a real machine's disk.
//!
//! A [`recording`] holds every write and flush of a machine that takes an update, confirms it and
//! goes back. [`cuts`] says which power cuts are looked at, [`timeline`] is the disk that each of
//! them left, [`judge`] what the product does with it, [`boots`] what a real machine does,
//! [`story`] tells where in the life that is, and [`run`] is the proof. [`kills`] cuts the power of a
//! machine at moments that nothing has chosen.
//!
//! # What is assumed
//! - A write that the log has before a flush was complete when the flush began. The product's own
//!   writers wait for each of their writes; of other writes in the state partition this may give the
//!   flush too much.
//! - A sector is written whole or not at all; the simulation spoils sectors too.

pub mod boots;
pub mod cuts;
pub mod judge;
pub mod kills;
pub mod old_clock;
pub mod recording;
pub mod run;
pub mod story;
pub mod timeline;
