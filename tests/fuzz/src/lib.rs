//! What several fuzz targets share.

pub mod publisher;

use partition_layout::bytes::{crc32c, put};

/// A copy of `data`, cut or filled to `size`, with the magic in front and a right CRC-32C at byte
/// 12: the fuzzer gets past the checksum and into the fields.
#[must_use]
pub fn with_checksum(data: &[u8], size: usize, magic: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = data.iter().copied().chain(std::iter::repeat(0)).take(size).collect();
    put(&mut bytes, 0, magic);
    put(&mut bytes, 12, &[0; 4]);
    let crc = crc32c(&[&bytes]);
    put(&mut bytes, 12, &crc.to_le_bytes());
    bytes
}
