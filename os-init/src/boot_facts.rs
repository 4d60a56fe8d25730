//! `/run/bascule/boot.json`: what is known about this boot, for everyone on the machine.

use partition_layout::slot::Slot;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Where it lies.
pub const PATH: &str = "/run/bascule/boot.json";

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The whole disk's device.
    pub dev: String,
    /// Offset on it, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// The kernel's device of the partition.
    pub part: String,
}

/// Both slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Slot A.
    pub a: Place,
    /// Slot B.
    pub b: Place,
}

/// What is known about this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// The booted slot, `a` or `b`.
    pub slot: String,
    /// Whether this boot is a trial.
    pub trial: bool,
    /// The booted disk's device.
    pub disk: String,
    /// Its identity, hexadecimal.
    pub disk_id: String,
    /// Its logical sector size in bytes.
    pub sector_size: u32,
    /// The record partition.
    pub record: Place,
    /// The slots.
    pub slots: Slots,
    /// Release number of the booted slot.
    pub release: u64,
    /// Version for people.
    pub version: String,
    /// The manifest digest, hexadecimal, when it is known.
    pub digest: Option<String>,
    /// `ok` or `degraded`.
    pub state: String,
    /// Why it is degraded.
    pub state_reason: Option<String>,
    /// Version of the loader.
    pub loader_version: String,
    /// Whether the loader could write the record.
    pub record_written: bool,
    /// Places of the record that the loader found damaged at this start; it mends one at each start.
    #[serde(default)]
    pub record_damaged: u8,
    /// Why the loader chose as it did.
    pub reasons: Vec<String>,
    /// The nonce of this boot, hexadecimal.
    pub boot_id: String,
}

impl BootFacts {
    /// Reads the facts of the running system.
    ///
    /// # Errors
    /// The system's, or that it is not JSON of this form.
    pub fn load() -> io::Result<Self> {
        let text = std::fs::read_to_string(PATH)?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// Writes them in one step for their readers.
    ///
    /// # Errors
    /// The system's.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, format!("{text}\n"))?;
        std::fs::rename(&fresh, path)
    }

    /// The booted slot.
    #[must_use]
    pub fn running(&self) -> Option<Slot> {
        Slot::from_word(&self.slot)
    }

    /// Where a slot lies.
    #[must_use]
    pub fn place(&self, slot: Slot) -> &Place {
        match slot {
            Slot::A => &self.slots.a,
            Slot::B => &self.slots.b,
        }
    }

    /// The device of the slot that is not running.
    #[must_use]
    pub fn other_slot_device(&self) -> Option<String> {
        self.running().map(|slot| self.place(slot.other()).part.clone())
    }

    /// The device of the running slot.
    #[must_use]
    pub fn running_slot_device(&self) -> Option<String> {
        self.running().map(|slot| self.place(slot).part.clone())
    }
}
