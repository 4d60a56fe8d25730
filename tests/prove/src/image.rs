//! Small releases: a true slot image, and the layer that carries it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use partition_layout::boot_state::ImageFacts;
use partition_layout::frames::{FRAME_SIZE, FrameTable, TAIL_SIZE, tar_header};
use partition_layout::labels::{ImageLabels, KIND_OS};
use partition_layout::slot_image::{BLOCK, Header, Trailer, align};
use partition_layout::verity::{TreeBuilder, superblock, tree_size};
use sha2::{Digest as _, Sha256};
use update_manifest::digest::Digest;
use update_manifest::oci::Descriptor;
use update_manifest::release::Release;

use strict_disk::random::Random;

/// What releases and machines are.
pub const PRODUCT: &str = "bascule";
/// Their architecture.
pub const ARCH: &str = "x86_64";
/// Size of the kernel image in a release, in bytes: no whole number of sectors.
const UKI_SIZE: usize = 5000;

/// A release.
#[derive(Debug)]
pub struct Image {
    /// Its number.
    pub number: u64,
    /// The digest that its manifest would have.
    pub digest: Digest,
    /// The slot image.
    pub slot: Vec<u8>,
    /// What its signed manifest says.
    pub release: Release,
    /// The layer.
    pub layer: Bytes,
}

impl Image {
    /// The release `number`, with a file system of so many blocks of 4096 bytes.
    ///
    /// # Errors
    /// What cannot be built, in words.
    pub fn new(number: u64, data_blocks: u64) -> Result<Arc<Image>, String> {
        let (slot, root_hash) = slot(number, data_blocks)?;
        let (layer, frames) = layer(&slot)?;
        let labels = ImageLabels {
            product: PRODUCT.into(),
            kind: KIND_OS.into(),
            arch: ARCH.into(),
            release: number,
            secver: 0,
            min_from: 0,
            requires: Vec::new(),
            version: format!("0.{number}.0"),
            slot_size: slot.len() as u64,
            slot_sha256: Sha256::digest(&slot).into(),
            root_hash,
        };
        let described = Descriptor {
            media_type: String::new(),
            digest: Digest::of(&layer),
            size: layer.len() as u64,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        };
        Ok(Arc::new(Image {
            number,
            // There is no manifest here; the labels are what it would vouch for.
            digest: Digest::of(format!("manifest of {labels:?}").as_bytes()),
            slot,
            release: Release { labels, layer: described, frames },
            layer: layer.into(),
        }))
    }

    /// What record and trailer say of it.
    #[must_use]
    pub fn facts(&self) -> ImageFacts {
        ImageFacts { release: self.number, secver: 0, digest: self.digest.0 }
    }
}

/// Bytes that compress a little, so that a frame is neither trivial nor large.
fn content(number: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(number);
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.draw().to_le_bytes());
        bytes.extend_from_slice(&[0; 56]);
    }
    bytes.truncate(length);
    bytes
}

fn slot(number: u64, data_blocks: u64) -> Result<(Vec<u8>, [u8; 32]), String> {
    let salt = [7; 32];
    let data_size = data_blocks * BLOCK;
    let hash_size = BLOCK + tree_size(data_blocks);
    let uki_at = data_size + hash_size;
    let trailer_at = align(uki_at + UKI_SIZE as u64).ok_or("an image too large")?;
    let size = |bytes: u64| usize::try_from(bytes).map_err(|_| "an image too large");
    let mut slot = content(number, size(data_size)?);
    let header = Header { trailer_at }.encode();
    slot[..header.len()].copy_from_slice(&header);
    let mut tree = TreeBuilder::new(salt);
    tree.update(&slot);
    let tree = tree.finish();
    slot.extend_from_slice(&superblock([9; 16], data_blocks, &salt));
    slot.extend_from_slice(&tree.bytes);
    let uki = content(number + 1_000_000, UKI_SIZE);
    slot.extend_from_slice(&uki);
    slot.resize(size(trailer_at)?, 0);
    let trailer = Trailer {
        data_size,
        hash_size,
        uki_at,
        uki_size: UKI_SIZE as u64,
        uki_sha256: Sha256::digest(&uki).into(),
        root_hash: tree.root,
        salt,
        release: number,
        secver: 0,
        version: format!("0.{number}.0"),
        product: PRODUCT.into(),
        arch: ARCH.into(),
        watchdogs: 0,
    };
    slot.extend_from_slice(&trailer.encode());
    Ok((slot, tree.root))
}

fn layer(slot: &[u8]) -> Result<(Vec<u8>, FrameTable), String> {
    let pack = |plain: &[u8]| {
        zstd::bulk::compress(plain, 1).map_err(|error| format!("compress a frame: {error}"))
    };
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| "a frame too large");
    let head = pack(&tar_header(slot.len() as u64).ok_or("an image too large")?)?;
    let tail = pack(&[0; TAIL_SIZE])?;
    let mut layer = head.clone();
    let mut sizes = Vec::new();
    for piece in slot.chunks(usize::try_from(FRAME_SIZE).map_err(|_| "a frame too large")?) {
        let packed = pack(piece)?;
        sizes.push(length(&packed)?);
        layer.extend(packed);
    }
    layer.extend_from_slice(&tail);
    let frames = FrameTable { head: head.len() as u64, slot: sizes, tail: tail.len() as u64 };
    Ok((layer, frames))
}
