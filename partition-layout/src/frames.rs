//! The layer of the container image: `slot.img` in a tar, as independent zstd frames.
//!
//! | frame | content |
//! |---|---|
//! | first | the tar header of `slot.img`, 512 bytes |
//! | slot frames | the slot, [`FRAME_SIZE`] bytes each, the last may be shorter |
//! | closing | 1024 zero bytes, the end of the tar |
//! | skippable | seek table in the zstd seekable format 0.1.0 |
//!
//! The layer descriptor's annotations name the compressed sizes, so that frame *k* can be asked for
//! by a range. The slot is a multiple of 4096 bytes, so the tar needs no padding.

use alloc::string::String;
use alloc::vec::Vec;

/// Uncompressed size of a slot frame in bytes.
pub const FRAME_SIZE: u64 = 1024 * 1024;
/// Most slot frames in a table: 8 GiB.
pub const FRAMES_MAX: usize = 8192;
/// Uncompressed size of the first frame.
pub const HEAD_SIZE: usize = 512;
/// Uncompressed size of the closing frame.
pub const TAIL_SIZE: usize = 1024;
/// Name of the only file in the tar.
pub const FILE_NAME: &str = "slot.img";

/// The tar header (ustar, POSIX.1-1988) of `slot.img`; deterministic. Sizes of 8 GiB and more do
/// not fit and give `None`.
#[must_use]
pub fn tar_header(slot_size: u64) -> Option<[u8; HEAD_SIZE]> {
    if slot_size >= 1 << 33 {
        return None;
    }
    let mut out = [0; HEAD_SIZE];
    let mut put = |at: usize, text: &[u8]| crate::bytes::put(&mut out, at, text);
    put(0, FILE_NAME.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, alloc::format!("{slot_size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = out.iter().map(|byte| u32::from(*byte)).sum();
    crate::bytes::put(&mut out, 148, alloc::format!("{sum:06o}\0 ").as_bytes());
    Some(out)
}

/// Compressed sizes in bytes of the frames of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameTable {
    /// The frame with the tar header.
    pub head: u64,
    /// The slot frames.
    pub slot: Vec<u32>,
    /// The closing frame.
    pub tail: u64,
}

/// Why a frame table is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Not base64, or not a multiple of three bytes.
    Encoding,
    /// A size of zero, too many frames, or a count that does not fit the slot's size.
    Value,
}

impl FrameTable {
    /// Where slot frame `index` begins in the layer, in bytes; also valid one past the last.
    #[must_use]
    pub fn offset(&self, index: usize) -> Option<u64> {
        let before = self.slot.get(..index)?;
        before.iter().try_fold(self.head, |sum, size| sum.checked_add(u64::from(*size)))
    }

    /// The sizes of the slot frames as the annotation holds them: base64 of u24, little-endian.
    #[must_use]
    pub fn encode_slot(&self) -> String {
        let bytes: Vec<u8> =
            self.slot.iter().flat_map(|s| s.to_le_bytes().into_iter().take(3)).collect();
        base64_encode(&bytes)
    }

    /// Reads the annotation's form; `slot_size` says how many frames there must be.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn decode(head: u64, slot: &str, tail: u64, slot_size: u64) -> Result<Self, Invalid> {
        // Four characters carry three bytes: one frame.
        if slot.len() > FRAMES_MAX * 4 {
            return Err(Invalid::Value);
        }
        let bytes = base64_decode(slot).ok_or(Invalid::Encoding)?;
        if bytes.len() % 3 != 0 {
            return Err(Invalid::Encoding);
        }
        let slot: Vec<u32> =
            bytes.chunks_exact(3).map(|b| u32::from_le_bytes([b[0], b[1], b[2], 0])).collect();
        let small = |size: u64| (1..=4096).contains(&size);
        let count = slot_size.div_ceil(FRAME_SIZE);
        let right_count = u64::try_from(slot.len()) == Ok(count) && count > 0;
        if !right_count || slot.contains(&0) || !small(head) || !small(tail) {
            return Err(Invalid::Value);
        }
        Ok(Self { head, slot, tail })
    }
}

/// The seek table: a skippable frame (magic 0x184D2A5E) with (compressed, uncompressed) u32 pairs of
/// every frame, then the count u32, a zero descriptor byte, and the magic 0x8F92EAB1.
#[must_use]
pub fn seek_table(frames: &[(u32, u32)]) -> Vec<u8> {
    let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let mut out = Vec::new();
    out.extend_from_slice(&0x184D_2A5E_u32.to_le_bytes());
    out.extend_from_slice(&count.saturating_mul(8).saturating_add(9).to_le_bytes());
    for (compressed, plain) in frames {
        out.extend_from_slice(&compressed.to_le_bytes());
        out.extend_from_slice(&plain.to_le_bytes());
    }
    out.extend_from_slice(&count.to_le_bytes());
    out.push(0);
    out.extend_from_slice(&0x8F92_EAB1_u32.to_le_bytes());
    out
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 (RFC 4648, section 4), padded.
#[must_use]
pub fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        for (index, byte) in chunk.iter().enumerate() {
            group[index + 1] = *byte;
        }
        let bits = u32::from_be_bytes(group);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let letter = ALPHABET.get(value as usize).copied().unwrap_or(b'=');
            out.push(if digit <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Reads standard base64, padded; nothing else.
#[must_use]
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let plain = text.trim_end_matches('=');
    if text.len() - plain.len() > 2 {
        return None;
    }
    let mut out = Vec::new();
    for chunk in plain.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for letter in chunk {
            let value = ALPHABET.iter().position(|known| known == letter)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let missing = 4 - chunk.len();
        bits <<= 6 * u32::try_from(missing).ok()?;
        // One value has one text: the bits behind the last byte are zero.
        if bits & ((1 << (8 * missing)) - 1) != 0 {
            return None;
        }
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend([a, b, c].into_iter().take(3 - missing));
    }
    Some(out)
}
