//! The slot image: what lies in a slot, byte for byte.
//!
//! | part | at | content |
//! |---|---|---|
//! | header | 0, 512 bytes | inside the erofs' own free first kilobyte |
//! | erofs | 0 | the root, padded to 4096 |
//! | verity | data size | superblock (4096), then the hash tree |
//! | UKI | after the tree | signed kernel image |
//! | padding | | zeros |
//! | trailer | last 4096 bytes | written last, zeroed first |
//!
//! All parts start at a multiple of 4096. Header: magic `BASCSLOT`, version u16 = 1, 2 zero bytes,
//! CRC-32C u32 over the 512 bytes with this field zero, trailer offset u64, then a
//! [TLV list](crate::tlv). It holds no hash, so nothing is circular. Trailer: magic `BASCTRLR`,
//! version u16 = 1, 2 zero bytes, CRC-32C u32 over the 4096 bytes with this field zero, then a TLV
//! list of the types in [`Trailer`]. An unknown type with the critical bit makes the slot unusable
//! to this version; it is refused, not guessed at.

use crate::bytes::{array, crc32c, put, u16_at, u32_at, u64_at};
use crate::tlv::{self, CRITICAL};
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

/// Every part is a multiple of this, in bytes.
pub const BLOCK: u64 = 4096;
/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 512;
/// Size of the trailer in bytes.
pub const TRAILER_SIZE: usize = 4096;
/// The largest UKI that a loader reads, in bytes: it is held in memory whole.
pub const UKI_MAX: u64 = 256 * 1024 * 1024;
const HEADER_MAGIC: &[u8; 8] = b"BASCSLOT";
const TRAILER_MAGIC: &[u8; 8] = b"BASCTRLR";
const HEADER_LIST: usize = 24;
const TRAILER_LIST: usize = 16;

/// The trailer says that the slot's kernel drives the i6300esb watchdog.
pub const WATCHDOG_I6300ESB: u32 = 1;
/// The trailer says that the slot's kernel drives the Intel TCO watchdog.
pub const WATCHDOG_ITCO: u32 = 2;

/// Why a header or a trailer is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Too short, or another magic: nothing of ours, or zeroed.
    Absent,
    /// A version, or a critical entry, that this release does not know.
    Unknown(u16),
    /// The checksum differs.
    Checksum,
    /// A field is missing, has a wrong length, or contradicts another.
    Value,
}

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Where the trailer is, in bytes from the slot's start.
    pub trailer_at: u64,
}

impl Header {
    /// The 512 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        put(&mut out, 0, HEADER_MAGIC);
        put(&mut out, 8, &1_u16.to_le_bytes());
        put(&mut out, 16, &self.trailer_at.to_le_bytes());
        let crc = crc32c(&[&out]);
        put(&mut out, 12, &crc.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw: [u8; HEADER_SIZE] = array(bytes, 0).ok_or(Invalid::Absent)?;
        check(&raw, HEADER_MAGIC)?;
        for (kind, _) in tlv::parse(&raw[HEADER_LIST..]).map_err(|_| Invalid::Value)? {
            if kind & CRITICAL != 0 {
                return Err(Invalid::Unknown(kind));
            }
        }
        let trailer_at = u64_at(&raw, 16).unwrap_or_default();
        if trailer_at == 0 || !trailer_at.is_multiple_of(BLOCK) {
            return Err(Invalid::Value);
        }
        Ok(Self { trailer_at })
    }
}

fn check(raw: &[u8], magic: &[u8; 8]) -> Result<(), Invalid> {
    if !raw.starts_with(magic) {
        return Err(Invalid::Absent);
    }
    if u32_at(raw, 12) != Some(crc32c(&[&raw[..12], &[0; 4], &raw[16..]])) {
        return Err(Invalid::Checksum);
    }
    match u16_at(raw, 8) {
        Some(1) => Ok(()),
        other => Err(Invalid::Unknown(other.unwrap_or_default())),
    }
}

/// The trailer: where the parts are, and which release this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// Type 1: size of the erofs in bytes, a multiple of 4096; also where the verity superblock is.
    pub data_size: u64,
    /// Type 2: size of the verity superblock and tree in bytes.
    pub hash_size: u64,
    /// Type 3: where the UKI is, in bytes from the slot's start.
    pub uki_at: u64,
    /// Type 4: size of the UKI in bytes.
    pub uki_size: u64,
    /// Type 5: SHA-256 of the UKI.
    pub uki_sha256: [u8; 32],
    /// Type 6: root hash of the verity tree.
    pub root_hash: [u8; 32],
    /// Type 7: salt of the verity tree.
    pub salt: [u8; 32],
    /// Type 8: release number.
    pub release: u64,
    /// Type 9: security version.
    pub secver: u32,
    /// Type 10: version for people, at most 64 bytes of UTF-8.
    pub version: String,
    /// Type 11: product, at most 64 bytes of UTF-8.
    pub product: String,
    /// Type 12: architecture, at most 16 bytes of UTF-8.
    pub arch: String,
    /// Type 13: watchdogs that the slot's kernel drives, [`WATCHDOG_I6300ESB`] and so on.
    pub watchdogs: u32,
}

impl Trailer {
    /// The 4096 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, value) in [
            (1, self.data_size),
            (2, self.hash_size),
            (3, self.uki_at),
            (4, self.uki_size),
            (8, self.release),
        ] {
            tlv::push(&mut list, kind, &value.to_le_bytes());
        }
        for (kind, value) in [(5, &self.uki_sha256), (6, &self.root_hash), (7, &self.salt)] {
            tlv::push(&mut list, kind, value);
        }
        for (kind, value) in [(9, self.secver), (13, self.watchdogs)] {
            tlv::push(&mut list, kind, &value.to_le_bytes());
        }
        for (kind, value) in [(10, &self.version), (11, &self.product), (12, &self.arch)] {
            tlv::push(&mut list, kind, value.as_bytes());
        }
        let mut out = vec![0; TRAILER_SIZE];
        put(&mut out, 0, TRAILER_MAGIC);
        put(&mut out, 8, &1_u16.to_le_bytes());
        put(&mut out, TRAILER_LIST, &list);
        let crc = crc32c(&[&out]);
        put(&mut out, 12, &crc.to_le_bytes());
        out
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw = bytes.get(..TRAILER_SIZE).ok_or(Invalid::Absent)?;
        check(raw, TRAILER_MAGIC)?;
        let entries = tlv::parse(&raw[TRAILER_LIST..]).map_err(|_| Invalid::Value)?;
        if let Some((kind, _)) = entries.iter().find(|(kind, _)| kind & CRITICAL != 0) {
            return Err(Invalid::Unknown(*kind));
        }
        let find = |kind: u16| {
            entries.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value).ok_or(Invalid::Value)
        };
        let long =
            |kind| find(kind)?.try_into().map(u64::from_le_bytes).map_err(|_| Invalid::Value);
        let short =
            |kind| find(kind)?.try_into().map(u32::from_le_bytes).map_err(|_| Invalid::Value);
        let hash = |kind| find(kind)?.try_into().map_err(|_| Invalid::Value);
        let text = |kind, most: usize| {
            let value = find(kind)?;
            let text = core::str::from_utf8(value).map_err(|_| Invalid::Value)?;
            let plain = value.len() <= most && !text.chars().any(char::is_control);
            plain.then(|| text.to_string()).ok_or(Invalid::Value)
        };
        let trailer = Self {
            data_size: long(1)?,
            hash_size: long(2)?,
            uki_at: long(3)?,
            uki_size: long(4)?,
            uki_sha256: hash(5)?,
            root_hash: hash(6)?,
            salt: hash(7)?,
            release: long(8)?,
            secver: short(9)?,
            version: text(10, 64)?,
            product: text(11, 64)?,
            arch: text(12, 16)?,
            watchdogs: short(13)?,
        };
        trailer.is_consistent().then_some(trailer).ok_or(Invalid::Value)
    }

    /// Where the trailer itself must be for this layout to hold: behind the UKI.
    #[must_use]
    pub fn fits(&self, trailer_at: u64) -> bool {
        self.uki_at.checked_add(self.uki_size).is_some_and(|end| end <= trailer_at)
    }

    fn is_consistent(&self) -> bool {
        let tree_end = self.data_size.checked_add(self.hash_size);
        self.data_size > 0
            && [self.data_size, self.hash_size, self.uki_at].iter().all(|v| v % BLOCK == 0)
            && tree_end.is_some_and(|end| end <= self.uki_at)
            && (1..=UKI_MAX).contains(&self.uki_size)
    }
}

/// Rounds up to a multiple of 4096; `None` on overflow.
#[must_use]
pub fn align(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}
