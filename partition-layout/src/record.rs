//! The boot record: 512 bytes that say which slot starts next, and why.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `BASCREC1` |
//! | 8 | 2 | head version, 1 for ever |
//! | 10 | 2 | length, 512 |
//! | 12 | 4 | CRC-32C over all 512 bytes with this field zero |
//! | 16 | 8 | generation; `u64::MAX` is invalid |
//! | 24 | 16 | disk id |
//! | 40 | 16 | nonce of the boot that the loader last started |
//! | 56 | 1 | default: 1 = A, 2 = B |
//! | 57 | 1 | trial: 0 = none, 1 = A, 2 = B |
//! | 58 | 1 | tries left of the trial |
//! | 59 | 1 | clean: refunds left of the trial |
//! | 60 | 1 | asks: reboots asked for because the loader could not write |
//! | 61 | 1 | flags: bit 0, the running default was confirmed in the boot of `nonce` |
//! | 62 | 2 | zero |
//! | 64 | 1 | last start: 0 = none, 1 = A, 2 = B, 3 = recovery |
//! | 65 | 1 | last start: stage, 0 = loader, 1 = init, 2 = gate, 3 = confirmed, 4 = clean |
//! | 66 | 1 | last start: overdue starts in a row |
//! | 67 | 1 | zero |
//! | 68 | 4 | last start: boot status of the watchdog, 0 = unknown |
//! | 72 | 8 | last start: clock in seconds since 1970, for differences only |
//! | 80 | 4 | floor: lowest security version that may be installed |
//! | 84 | 4 | zero |
//! | 88 | 64 | slot A |
//! | 152 | 64 | slot B |
//! | 216 | 96 | quarantine: 4 × 24 |
//! | 312 | 200 | of later versions: copied as it is |
//!
//! Slot: content u8 (0 empty, 1 writing, 2 sealed), proven u8, fault u8 (0 none, 1 spent, 2 load,
//! 3 evidence), cause u8, security version u32, release u64, manifest digest 32, counted u8 (the
//! fault is already in the quarantine), 15 of later versions. Quarantine: digest prefix 16 (zero =
//! free), reason u8, count u8, generation u32, 2 zero.
//!
//! All integers are little-endian. Bytes that this version does not name are kept as they were
//! read. A value that this version does not know is read as the one that is safe: a content as
//! `writing`, a fault as `evidence`.

use crate::bytes::{array, crc32c, put, u16_at, u32_at, u64_at};
use crate::slot::Slot;

/// Size of a record in bytes.
pub const RECORD_SIZE: usize = 512;
/// Number of quarantine entries.
pub const QUARANTINE_MAX: usize = 4;
const MAGIC: &[u8; 8] = b"BASCREC1";
const SLOT_AT: [usize; 2] = [88, 152];
const QUARANTINE_AT: usize = 216;
const QUARANTINE_SIZE: usize = 24;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nothing.
    Empty,
    /// Half an image; nobody starts it.
    Writing,
    /// A whole image that was read back.
    Sealed,
}

/// How a slot ranks; a higher one is started later, never not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Nothing is held against it.
    None,
    /// Its trial's tries were used up.
    Spent,
    /// Its kernel image could not be loaded.
    Load,
    /// It was seen to fail.
    Evidence,
}

/// What a fault or a quarantine entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// Not known to this version.
    Unknown = 0,
    /// The tries were used up: it never reported.
    TriesSpent = 1,
    /// Its kernel image is unreadable or differs from the trailer.
    Unreadable = 2,
    /// The firmware refused its kernel image.
    Refused = 3,
    /// Its kernel image returned instead of starting.
    Returned = 4,
    /// The health gate failed.
    Gate = 5,
    /// dm-verity found a corrupted block.
    Verity = 6,
    /// It hung.
    Hang = 7,
    /// Started several times without ever reporting, each longer than its watchdog allows.
    Overdue = 8,
    /// An operator left it by a rollback.
    Operator = 9,
}

impl Cause {
    const ALL: [Self; 10] = [
        Self::Unknown,
        Self::TriesSpent,
        Self::Unreadable,
        Self::Refused,
        Self::Returned,
        Self::Gate,
        Self::Verity,
        Self::Hang,
        Self::Overdue,
        Self::Operator,
    ];

    pub(crate) fn from_byte(byte: u8) -> Self {
        Self::ALL.into_iter().find(|cause| *cause as u8 == byte).unwrap_or(Self::Unknown)
    }

    /// Whether a boot that failed so speaks against the release, not against the disk.
    #[must_use]
    pub fn blames_release(self) -> bool {
        match self {
            Self::Unknown | Self::Unreadable | Self::Verity => false,
            Self::TriesSpent
            | Self::Refused
            | Self::Returned
            | Self::Gate
            | Self::Hang
            | Self::Overdue
            | Self::Operator => true,
        }
    }

    /// The words for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => "unknown cause",
            Self::TriesSpent => "all tries used without a healthy boot",
            Self::Unreadable => "kernel image unreadable or altered",
            Self::Refused => "kernel image refused by the firmware",
            Self::Returned => "kernel image returned without starting",
            Self::Gate => "health gate failed",
            Self::Verity => "corrupted block found by dm-verity",
            Self::Hang => "hung",
            Self::Overdue => "hung several times in a row",
            Self::Operator => "left by an operator's rollback",
        }
    }
}

/// What is known about one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotRecord {
    /// What it holds.
    pub content: Content,
    /// Whether it once passed the health gate.
    pub proven: bool,
    /// How it ranks.
    pub fault: Fault,
    /// Where the fault came from.
    pub cause: Cause,
    /// Security version of the image.
    pub secver: u32,
    /// Release number of the image.
    pub release: u64,
    /// SHA-256 of the manifest it came from; zero when it did not come from a registry.
    pub digest: [u8; 32],
    /// Whether the fault has been counted in the quarantine.
    pub counted: bool,
}

impl SlotRecord {
    /// A slot that holds nothing.
    pub const EMPTY: Self = Self {
        content: Content::Empty,
        proven: false,
        fault: Fault::None,
        cause: Cause::Unknown,
        secver: 0,
        release: 0,
        digest: [0; 32],
        counted: false,
    };
}

/// How far the last start came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// The loader started it.
    Loader = 0,
    /// os-init reported.
    Init = 1,
    /// The health gate is open.
    Gate = 2,
    /// The gate passed.
    Confirmed = 3,
    /// It was shut down in order.
    Clean = 4,
}

/// What was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A slot.
    Slot(Slot),
    /// The recovery image.
    Recovery,
}

/// The last start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LastStart {
    /// What was started; `None` before the first start.
    pub target: Option<Target>,
    /// How far it came.
    pub stage: Stage,
    /// Overdue starts in a row.
    pub overdue: u8,
    /// The watchdog's boot status as os-init read it; 0 is unknown.
    pub watchdog: u32,
    /// The firmware's clock at the start, in seconds; only differences mean anything.
    pub rtc_s: u64,
}

/// A digest that is not installed again until an operator asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quarantined {
    /// The first 16 bytes of the manifest's SHA-256.
    pub prefix: [u8; 16],
    /// Why.
    pub cause: Cause,
    /// How often.
    pub count: u8,
    /// The record's generation when it was last counted, its low 32 bits: of two entries with the
    /// same count the older one makes room.
    pub generation: u32,
}

/// The boot record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Counts the writes.
    pub generation: u64,
    /// The disk's identity.
    pub disk_id: [u8; 16],
    /// The nonce of the boot that the loader last started.
    pub nonce: [u8; 16],
    /// The slot that starts when there is no trial.
    pub default: Slot,
    /// The slot on trial.
    pub trial: Option<Slot>,
    /// Tries left.
    pub tries: u8,
    /// Refunds left.
    pub clean: u8,
    /// Reboots asked for because the loader could not write.
    pub asks: u8,
    /// Whether the running default was confirmed in the boot of `nonce`.
    pub confirmed_this_boot: bool,
    /// The last start.
    pub last: LastStart,
    /// Lowest security version that may be installed.
    pub floor: u32,
    /// Slot A and slot B.
    pub slots: [SlotRecord; 2],
    /// What is not installed again by itself.
    pub quarantine: [Option<Quarantined>; QUARANTINE_MAX],
    /// The bytes as they were read, for those that this version does not name.
    pub raw: [u8; RECORD_SIZE],
}

/// Why 512 bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Too short, or another magic.
    NotARecord,
    /// A head version or a length that this version must not touch.
    Version,
    /// The checksum differs: torn, decayed, or half written.
    Checksum,
    /// A generation of `u64::MAX`, or a default that is no slot.
    Value,
}

fn slot_byte(slot: Option<Slot>) -> u8 {
    match slot {
        None => 0,
        Some(Slot::A) => 1,
        Some(Slot::B) => 2,
    }
}

fn slot_of(byte: u8) -> Option<Slot> {
    match byte {
        1 => Some(Slot::A),
        2 => Some(Slot::B),
        _ => None,
    }
}

impl Record {
    /// A record for a fresh disk: nothing sealed, slot A the default.
    #[must_use]
    pub fn fresh(disk_id: [u8; 16]) -> Self {
        Self {
            generation: 1,
            disk_id,
            nonce: [0; 16],
            default: Slot::A,
            trial: None,
            tries: 0,
            clean: 0,
            asks: 0,
            confirmed_this_boot: false,
            last: LastStart {
                target: None,
                stage: Stage::Clean,
                overdue: 0,
                watchdog: 0,
                rtc_s: 0,
            },
            floor: 0,
            slots: [SlotRecord::EMPTY; 2],
            quarantine: [None; QUARANTINE_MAX],
            raw: [0; RECORD_SIZE],
        }
    }

    /// What is known about `slot`.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> &SlotRecord {
        &self.slots[slot.index()]
    }

    /// What is known about `slot`, to change.
    pub fn slot_mut(&mut self, slot: Slot) -> &mut SlotRecord {
        &mut self.slots[slot.index()]
    }

    /// No slot is on trial any more.
    pub(crate) fn end_trial(&mut self) {
        self.trial = None;
        self.tries = 0;
        self.clean = 0;
    }

    /// The quarantine entry of a manifest digest.
    #[must_use]
    pub fn quarantined(&self, digest: &[u8; 32]) -> Option<Quarantined> {
        self.quarantine.iter().flatten().find(|entry| digest.starts_with(&entry.prefix)).copied()
    }

    /// The 512 bytes on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_SIZE] {
        let mut out = self.raw;
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &1_u16.to_le_bytes());
        put(&mut out, 10, &512_u16.to_le_bytes());
        put(&mut out, 12, &[0; 4]);
        put(&mut out, 16, &self.generation.to_le_bytes());
        put(&mut out, 24, &self.disk_id);
        put(&mut out, 40, &self.nonce);
        let choice = [
            slot_byte(Some(self.default)),
            slot_byte(self.trial),
            self.tries,
            self.clean,
            self.asks,
            out[61] & !1 | u8::from(self.confirmed_this_boot),
        ];
        put(&mut out, 56, &choice);
        let target = match self.last.target {
            None => 0,
            Some(Target::Slot(slot)) => slot_byte(Some(slot)),
            Some(Target::Recovery) => 3,
        };
        put(&mut out, 64, &[target, self.last.stage as u8, self.last.overdue]);
        put(&mut out, 68, &self.last.watchdog.to_le_bytes());
        put(&mut out, 72, &self.last.rtc_s.to_le_bytes());
        put(&mut out, 80, &self.floor.to_le_bytes());
        for (slot, at) in self.slots.iter().zip(SLOT_AT) {
            encode_slot(slot, &mut out, at);
        }
        for (index, entry) in self.quarantine.iter().enumerate() {
            let at = QUARANTINE_AT + index * QUARANTINE_SIZE;
            let (prefix, cause, count, since) = entry
                .map_or(([0; 16], 0, 0, 0), |e| (e.prefix, e.cause as u8, e.count, e.generation));
            put(&mut out, at, &prefix);
            put(&mut out, at + 16, &[cause, count]);
            put(&mut out, at + 18, &since.to_le_bytes());
        }
        let crc = crc32c(&[&out]);
        put(&mut out, 12, &crc.to_le_bytes());
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Invalid`]; such bytes are never used, and never a reason to fail.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw: [u8; RECORD_SIZE] = array(bytes, 0).ok_or(Invalid::NotARecord)?;
        if !raw.starts_with(MAGIC) {
            return Err(Invalid::NotARecord);
        }
        if u16_at(&raw, 8) != Some(1) || u16_at(&raw, 10) != Some(512) {
            return Err(Invalid::Version);
        }
        if u32_at(&raw, 12) != Some(crc32c(&[&raw[..12], &[0; 4], &raw[16..]])) {
            return Err(Invalid::Checksum);
        }
        let generation = u64_at(&raw, 16).filter(|g| *g != u64::MAX).ok_or(Invalid::Value)?;
        let default = slot_of(raw[56]).ok_or(Invalid::Value)?;
        let target = match raw[64] {
            3 => Some(Target::Recovery),
            other => slot_of(other).map(Target::Slot),
        };
        let stage = match raw[65] {
            0 => Stage::Loader,
            1 => Stage::Init,
            2 => Stage::Gate,
            3 => Stage::Confirmed,
            _ => Stage::Clean,
        };
        let quarantine = core::array::from_fn(|index| {
            decode_quarantined(&raw, QUARANTINE_AT + index * QUARANTINE_SIZE)
        });
        Ok(Self {
            generation,
            disk_id: array(&raw, 24).unwrap_or_default(),
            nonce: array(&raw, 40).unwrap_or_default(),
            default,
            trial: slot_of(raw[57]),
            tries: raw[58],
            clean: raw[59],
            asks: raw[60],
            confirmed_this_boot: raw[61] & 1 != 0,
            last: LastStart {
                target,
                stage,
                overdue: raw[66],
                watchdog: u32_at(&raw, 68).unwrap_or_default(),
                rtc_s: u64_at(&raw, 72).unwrap_or_default(),
            },
            floor: u32_at(&raw, 80).unwrap_or_default(),
            slots: SLOT_AT.map(|at| decode_slot(&raw, at)),
            quarantine,
            raw,
        })
    }
}

fn encode_slot(slot: &SlotRecord, out: &mut [u8], at: usize) {
    let content = match slot.content {
        Content::Empty => 0,
        Content::Writing => 1,
        Content::Sealed => 2,
    };
    let fault = match slot.fault {
        Fault::None => 0,
        Fault::Spent => 1,
        Fault::Load => 2,
        Fault::Evidence => 3,
    };
    put(out, at, &[content, u8::from(slot.proven), fault, slot.cause as u8]);
    put(out, at + 4, &slot.secver.to_le_bytes());
    put(out, at + 8, &slot.release.to_le_bytes());
    put(out, at + 16, &slot.digest);
    put(out, at + 48, &[u8::from(slot.counted)]);
}

fn decode_slot(raw: &[u8; RECORD_SIZE], at: usize) -> SlotRecord {
    let byte = |offset: usize| raw.get(at + offset).copied().unwrap_or_default();
    SlotRecord {
        content: match byte(0) {
            0 => Content::Empty,
            2 => Content::Sealed,
            _ => Content::Writing,
        },
        proven: byte(1) == 1,
        fault: match byte(2) {
            0 => Fault::None,
            1 => Fault::Spent,
            2 => Fault::Load,
            _ => Fault::Evidence,
        },
        cause: Cause::from_byte(byte(3)),
        secver: u32_at(raw, at + 4).unwrap_or_default(),
        release: u64_at(raw, at + 8).unwrap_or_default(),
        digest: array(raw, at + 16).unwrap_or_default(),
        counted: byte(48) == 1,
    }
}

fn decode_quarantined(raw: &[u8; RECORD_SIZE], at: usize) -> Option<Quarantined> {
    let prefix: [u8; 16] = array(raw, at)?;
    let [cause, count] = array(raw, at + 16)?;
    let generation = u32_at(raw, at + 18)?;
    let cause = Cause::from_byte(cause);
    (prefix != [0; 16]).then_some(Quarantined { prefix, cause, count, generation })
}
