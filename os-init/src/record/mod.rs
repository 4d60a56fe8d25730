//! The record helper: the one process of the running system that writes the boot record.
//!
//! PID 1 and the updater ask it over `/run/bascule/record.sock` (root only), so that PID 1 never
//! waits for a disk and that one writer means one lock. Each request is one line, each answer is one
//! line; see [`protocol`].

pub mod client;
pub mod protocol;
pub mod server;

pub use client::{Client, Error};

/// The helper's socket.
pub const SOCKET: &str = "/run/bascule/record.sock";
