//! os-init: the first process in the initrd, PID 1 afterwards, the record helper, and the services.
//!
//! Reading order: [`initrd`] (find the booted disk, set up verity, switch root), [`pid1`] (the loop)
//! with [`setup`], [`state`], [`hardware`], [`identity`], [`config`]; [`record`] (the helper that
//! alone writes the boot record); [`control`] (what others may ask of PID 1); [`gate`] (is this boot
//! good enough to be kept); [`services`] (the system services as containers); [`recovery`].

pub mod boot_facts;
pub mod config;
pub mod console;
pub mod control;
pub mod find_disk;
pub mod gate;
pub mod hardware;
pub mod identity;
pub mod initrd;
pub mod pid1;
pub mod record;
pub mod recovery;
pub mod services;
pub mod setup;
pub mod shutdown;
#[cfg(feature = "wire")]
pub mod socket;
pub mod state;
pub mod supervise;
pub mod watchdog;
