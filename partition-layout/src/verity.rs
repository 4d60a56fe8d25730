//! dm-verity: superblock, hash tree, root hash, and the table that os-init sets up.
//!
//! Source: the kernel's Documentation/admin-guide/device-mapper/verity.rst and cryptsetup's
//! on-disk format 1: SHA-256, 4096-byte blocks, the salt hashed before the data. The superblock is
//! one block; the tree follows with its top level first, as `veritysetup format` writes it.
//!
//! Superblock: `verity\0\0`, version u32 = 1, hash type u32 = 1, UUID 16, algorithm 32 (`sha256`),
//! data block size u32, hash block size u32, data blocks u64, salt size u16, 6 zero bytes, salt 256.

use crate::bytes::put;
use crate::slot_image::BLOCK;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

const BLOCK_SIZE: usize = 4096;
const HASH_SIZE: usize = 32;
const HASHES_PER_BLOCK: usize = BLOCK_SIZE / HASH_SIZE;

/// Hashes blocks in order; holds the tree, never the data.
#[derive(Debug, Clone)]
pub struct TreeBuilder {
    leaves: Vec<u8>,
    salted: Sha256,
}

/// A finished tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Root hash.
    pub root: [u8; 32],
    /// The levels as they lie on disk, top first; a multiple of 4096 bytes.
    pub bytes: Vec<u8>,
    /// Number of data blocks.
    pub data_blocks: u64,
}

impl TreeBuilder {
    /// Begins a tree with this salt.
    #[must_use]
    pub fn new(salt: [u8; 32]) -> Self {
        let mut salted = Sha256::new();
        salted.update(salt);
        Self { leaves: Vec::new(), salted }
    }

    /// Adds data; its length must be a multiple of 4096 bytes, a last part of a block is dropped.
    pub fn update(&mut self, data: &[u8]) {
        for block in data.chunks_exact(BLOCK_SIZE) {
            self.leaves.extend_from_slice(&hash(&self.salted, block));
        }
    }

    /// Number of data blocks so far.
    #[must_use]
    pub fn data_blocks(&self) -> u64 {
        (self.leaves.len() / HASH_SIZE) as u64
    }

    /// Builds the levels above.
    #[must_use]
    pub fn finish(self) -> Tree {
        let data_blocks = self.data_blocks();
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut hashes = self.leaves;
        // With a single data block the tree has no level: its hash is the root.
        while hashes.len() > HASH_SIZE {
            let level = pad(hashes);
            hashes = level.chunks_exact(BLOCK_SIZE).flat_map(|b| hash(&self.salted, b)).collect();
            levels.push(level);
        }
        let root = hashes.first_chunk().copied().unwrap_or_default();
        let bytes = levels.into_iter().rev().flatten().collect();
        Tree { root, bytes, data_blocks }
    }
}

fn hash(salted: &Sha256, block: &[u8]) -> [u8; 32] {
    let mut hasher = salted.clone();
    hasher.update(block);
    hasher.finalize().into()
}

fn pad(mut hashes: Vec<u8>) -> Vec<u8> {
    let size = hashes.len().next_multiple_of(BLOCK_SIZE);
    hashes.resize(size, 0);
    hashes
}

/// Size of the tree in bytes, without the superblock, for so many data blocks.
#[must_use]
pub fn tree_size(data_blocks: u64) -> u64 {
    let per_block = HASHES_PER_BLOCK as u64;
    let (mut blocks, mut hashes) = (0_u64, data_blocks);
    while hashes > 1 {
        hashes = hashes.div_ceil(per_block);
        blocks = blocks.saturating_add(hashes);
    }
    blocks.saturating_mul(BLOCK)
}

/// The superblock, one block.
#[must_use]
pub fn superblock(uuid: [u8; 16], data_blocks: u64, salt: &[u8; 32]) -> Vec<u8> {
    let mut out = vec![0; BLOCK_SIZE];
    put(&mut out, 0, b"verity\0\0");
    put(&mut out, 8, &1_u32.to_le_bytes());
    put(&mut out, 12, &1_u32.to_le_bytes());
    put(&mut out, 16, &uuid);
    put(&mut out, 32, b"sha256");
    put(&mut out, 64, &4096_u32.to_le_bytes());
    put(&mut out, 68, &4096_u32.to_le_bytes());
    put(&mut out, 72, &data_blocks.to_le_bytes());
    put(&mut out, 80, &32_u16.to_le_bytes());
    put(&mut out, 88, salt);
    out
}

/// What os-init needs to set up verity; it lies in the signed initrd as `/verity`, one line:
/// `data_blocks=N hash_start=N root=HEX salt=HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerityTable {
    /// Number of 4096-byte data blocks.
    pub data_blocks: u64,
    /// First block of the tree (after the superblock), in 4096-byte blocks from the slot's start.
    pub hash_start: u64,
    /// Root hash.
    pub root: [u8; 32],
    /// Salt.
    pub salt: [u8; 32],
}

impl VerityTable {
    /// The line, of the same length for any root and salt.
    #[must_use]
    pub fn encode(&self) -> String {
        format!(
            "data_blocks={:020} hash_start={:020} root={} salt={}\n",
            self.data_blocks,
            self.hash_start,
            hex(&self.root),
            hex(&self.salt)
        )
    }

    /// Reads the line; every key exactly once, nothing else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut keys = text.strip_suffix('\n').unwrap_or(text).split(' ');
        let mut value = |key: &str| keys.next()?.strip_prefix(key)?.strip_prefix('=');
        let table = Self {
            data_blocks: number(value("data_blocks")?)?,
            hash_start: number(value("hash_start")?)?,
            root: unhex(value("root")?)?,
            salt: unhex(value("salt")?)?,
        };
        (keys.next().is_none() && table.data_blocks > 0).then_some(table)
    }

    /// The device-mapper target line for a device that holds data and tree, as the kernel takes it.
    #[must_use]
    pub fn target(&self, device: &str) -> String {
        format!(
            "1 {device} {device} 4096 4096 {} {} sha256 {} {}",
            self.data_blocks,
            self.hash_start,
            hex(&self.root),
            hex(&self.salt)
        )
    }
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal of exactly `N` bytes.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != N * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in out.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(out)
}
