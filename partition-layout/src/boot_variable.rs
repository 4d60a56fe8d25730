//! What the loader tells os-init: the volatile EFI variable `BasculeBoot`.
//!
//! Vendor GUID [`crate::guid::VENDOR`], attributes boot-service and runtime access, never
//! non-volatile. Content: magic `BASCBOOT`, version u16 = 1, 2 zero bytes, then a
//! [TLV list](crate::tlv); unknown types are passed over, so that a loader that is never replaced
//! and a newer os-init understand each other.
//!
//! | type | value |
//! |---|---|
//! | 1 | loader version, UTF-8 |
//! | 2 | disk id, 16 bytes |
//! | 3 | nonce, 16 bytes |
//! | 4 | booted: 1 = A, 2 = B, 3 = recovery |
//! | 5 | first LBA u64 and number of sectors u64 of the booted slot |
//! | 6 | logical sector size u32 |
//! | 7 | record generation u64 |
//! | 8 | 1 when the record of this start is durable, else 0 |
//! | 9 | first LBA u64 and number of sectors u64 of the record partition |
//! | 10 | watchdogs armed, u32, as in the trailer |
//! | 11 | reasons: 3 bytes each, see [`encode_reason`] |
//! | 12 | address of the read buffer, u64 |
//! | 13 | number of damaged record places that this start found, u8; absent is 0 |

use crate::boot_state::Reason;
use crate::bytes::u64_at;
use crate::record::{Cause, Target};
use crate::slot::Slot;
use crate::tlv;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// Name of the variable.
pub const NAME: &str = "BasculeBoot";
const MAGIC: &[u8; 8] = b"BASCBOOT";
const LIST_AT: usize = 12;

/// Where a partition lies, in logical sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// First sector.
    pub first: u64,
    /// Number of sectors.
    pub sectors: u64,
}

/// The variable's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootVariable {
    /// Version of the loader.
    pub loader: String,
    /// The disk's identity.
    pub disk_id: [u8; 16],
    /// The nonce in the record of this start.
    pub nonce: [u8; 16],
    /// What was started.
    pub booted: Target,
    /// Where the booted slot lies; zero for recovery.
    pub slot: Extent,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Generation of the record of this start.
    pub generation: u64,
    /// Whether that record is durable.
    pub record_written: bool,
    /// Where the record partition lies.
    pub record: Extent,
    /// Watchdogs armed, as in the trailer.
    pub watchdogs: u32,
    /// Why this was started, in the order in which it came about.
    pub reasons: Vec<Reason>,
    /// Address of the read buffer.
    pub buffer: u64,
    /// Damaged places of the record that this start found.
    pub damaged: u8,
}

/// One reason in three bytes: kind (1 trial spent, 2 load failed, 3 record not writable, 4 record
/// rebuilt, 5 unproven slot ended, 6 overdue, 7 by hand), slot (1 = A, 2 = B, 0 = none), cause.
#[must_use]
pub fn encode_reason(reason: Reason) -> [u8; 3] {
    let slot = |slot: Slot| slot.index() as u8 + 1;
    match reason {
        Reason::TrialSpent(s) => [1, slot(s), 0],
        Reason::LoadFailed(s, cause) => [2, slot(s), cause as u8],
        Reason::NotWritable => [3, 0, 0],
        Reason::Rebuilt => [4, 0, 0],
        Reason::UnprovenEnded(s) => [5, slot(s), 0],
        Reason::Overdue(s) => [6, slot(s), 0],
        Reason::ByHand => [7, 0, 0],
    }
}

fn decode_reason(bytes: &[u8]) -> Option<Reason> {
    let [kind, slot, cause] = bytes.try_into().ok()?;
    let slot = match slot {
        1 => Some(Slot::A),
        2 => Some(Slot::B),
        _ => None,
    };
    match kind {
        1 => slot.map(Reason::TrialSpent),
        2 => slot.map(|slot| Reason::LoadFailed(slot, Cause::from_byte(cause))),
        3 => Some(Reason::NotWritable),
        4 => Some(Reason::Rebuilt),
        5 => slot.map(Reason::UnprovenEnded),
        6 => slot.map(Reason::Overdue),
        7 => Some(Reason::ByHand),
        _ => None,
    }
}

impl BootVariable {
    /// The bytes of the variable.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[1, 0, 0, 0]);
        let extent = |extent: Extent| {
            let mut bytes = extent.first.to_le_bytes().to_vec();
            bytes.extend_from_slice(&extent.sectors.to_le_bytes());
            bytes
        };
        let booted = match self.booted {
            Target::Slot(Slot::A) => 1,
            Target::Slot(Slot::B) => 2,
            Target::Recovery => 3,
        };
        let reasons: Vec<u8> = self.reasons.iter().flat_map(|r| encode_reason(*r)).collect();
        tlv::push(&mut out, 1, self.loader.as_bytes());
        tlv::push(&mut out, 2, &self.disk_id);
        tlv::push(&mut out, 3, &self.nonce);
        tlv::push(&mut out, 4, &[booted]);
        tlv::push(&mut out, 5, &extent(self.slot));
        tlv::push(&mut out, 6, &self.sector_size.to_le_bytes());
        tlv::push(&mut out, 7, &self.generation.to_le_bytes());
        tlv::push(&mut out, 8, &[u8::from(self.record_written)]);
        tlv::push(&mut out, 9, &extent(self.record));
        tlv::push(&mut out, 10, &self.watchdogs.to_le_bytes());
        tlv::push(&mut out, 11, &reasons);
        tlv::push(&mut out, 12, &self.buffer.to_le_bytes());
        tlv::push(&mut out, 13, &[self.damaged]);
        out
    }

    /// Reads the variable; `None` when a field that os-init needs is missing or malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let entries = tlv::parse(bytes.get(LIST_AT..)?).ok()?;
        let find = |kind: u16| entries.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        let extent = |kind| {
            let value = find(kind)?;
            Some(Extent { first: u64_at(value, 0)?, sectors: u64_at(value, 8)? })
        };
        let booted = match find(4)? {
            [1] => Target::Slot(Slot::A),
            [2] => Target::Slot(Slot::B),
            [3] => Target::Recovery,
            _ => return None,
        };
        let loader = core::str::from_utf8(find(1)?).ok()?;
        Some(Self {
            loader: loader.chars().filter(|c| !c.is_control()).collect::<String>().to_string(),
            disk_id: find(2)?.try_into().ok()?,
            nonce: find(3)?.try_into().ok()?,
            booted,
            slot: extent(5)?,
            sector_size: u32::from_le_bytes(find(6)?.try_into().ok()?),
            generation: u64::from_le_bytes(find(7)?.try_into().ok()?),
            record_written: find(8)? == [1],
            record: extent(9)?,
            watchdogs: find(10).and_then(|v| v.try_into().ok()).map_or(0, u32::from_le_bytes),
            reasons: find(11).unwrap_or_default().chunks(3).filter_map(decode_reason).collect(),
            buffer: find(12).and_then(|value| u64_at(value, 0)).unwrap_or_default(),
            damaged: find(13).and_then(|value| value.first().copied()).unwrap_or_default(),
        })
    }
}
