//! Type-length-value lists, as in the slot header, the trailer and the boot variable.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | type, little-endian; bit 15 set: critical, a reader that does not know it must refuse |
//! | 2 | length of the value in bytes, little-endian |
//! | n | value |
//!
//! Type 0 ends the list. An unknown type without the critical bit is passed over.

use alloc::vec::Vec;

/// The critical bit.
pub const CRITICAL: u16 = 0x8000;

/// Why a list was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlvError {
    /// A length runs past the end.
    Truncated,
}

/// Appends one entry; a value over 65,535 bytes is a mistake of the caller and is dropped.
pub fn push(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else {
        return;
    };
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
}

/// Reads a list up to its end mark or the end of `bytes`.
///
/// # Errors
/// [`TlvError::Truncated`].
pub fn parse(bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, TlvError> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_at_checked(4) {
        let kind = u16::from_le_bytes([head[0], head[1]]);
        if kind == 0 {
            return Ok(entries);
        }
        let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let (value, after) = tail.split_at_checked(length).ok_or(TlvError::Truncated)?;
        entries.push((kind, value));
        rest = after;
    }
    if rest.iter().all(|byte| *byte == 0) { Ok(entries) } else { Err(TlvError::Truncated) }
}
