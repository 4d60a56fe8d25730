//! The partitions of a Bascule disk: one table.
//!
//! Sizes are what a fresh disk gets. A machine in the field reads them from its own table; no code
//! path uses these constants to find anything on a disk that exists.

use crate::guid::{self, Guid};

/// One mebibyte in bytes.
pub const MIB: u64 = 1024 * 1024;
/// Every partition starts and ends at a multiple of this many bytes.
pub const ALIGNMENT: u64 = MIB;

/// One partition of a fresh disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Name in the table.
    pub name: &'static str,
    /// Type.
    pub kind: Guid,
    /// Size in bytes.
    pub size: u64,
}

/// What a fresh disk holds, in order; state follows at first boot, to the disk's end.
pub const FRESH: [Partition; 4] = [
    Partition { name: "bascule-esp", kind: guid::ESP, size: 512 * MIB },
    Partition { name: "bascule-record", kind: guid::RECORD, size: 16 * MIB },
    Partition { name: "bascule-slot-a", kind: guid::SLOT_A, size: 2048 * MIB },
    Partition { name: "bascule-slot-b", kind: guid::SLOT_B, size: 2048 * MIB },
];

/// Name of the state partition.
pub const STATE_NAME: &str = "bascule-state";

/// Smallest state partition that is made, in bytes.
pub const STATE_MIN: u64 = 256 * MIB;
