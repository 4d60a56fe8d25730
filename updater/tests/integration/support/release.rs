//! A small release: a true slot image, its layer in frames, and its signature.

use partition_layout::frames::{FRAME_SIZE, FrameTable, TAIL_SIZE, seek_table, tar_header};
use partition_layout::labels::{self, ImageLabels, KIND_OS};
use partition_layout::slot_image::{Header, Trailer, align};
use partition_layout::verity::{TreeBuilder, superblock, tree_size};
use sha2::{Digest as _, Sha256};
use update_manifest::oci::{Descriptor, MEDIA_CONFIG, MEDIA_LAYER, MEDIA_MANIFEST};
use update_manifest::sign::{SigningKey, describe, sign_bundle};
use updater::registry::Registry;
use updater::registry::push::Attachment;

use super::{ARCH, PRODUCT, REPOSITORY, TAG};

/// Size of the file system in it, in bytes: noise, so that it compresses as badly as a real one.
const DATA_SIZE: usize = 3 << 20;
/// Size of the kernel image in it, in bytes.
const UKI_SIZE: usize = 5000;

/// A release on its way to a registry.
pub struct Release {
    /// The slot image.
    pub slot: Vec<u8>,
    /// Compressed sizes of the layer's frames.
    pub frames: FrameTable,
    /// The layer blob.
    pub layer: Vec<u8>,
    /// How the manifest lists the layer.
    pub layer_listed: Descriptor,
    /// Facts about the slot, as the config has them.
    pub labels: ImageLabels,
    config: Vec<u8>,
    /// The image manifest.
    pub manifest: Vec<u8>,
}

impl Release {
    /// Makes the release with this number.
    pub fn new(number: u64) -> Release {
        Release::altered(number, |_, _| {})
    }

    /// Makes a release whose slot image was changed before it was signed, and its labels with it:
    /// the signed hash is that of the changed image.
    pub fn altered(number: u64, change: impl FnOnce(&mut Vec<u8>, &mut ImageLabels)) -> Release {
        let (mut slot, root_hash) = slot(number);
        let mut labels = ImageLabels {
            product: PRODUCT.into(),
            kind: KIND_OS.into(),
            arch: ARCH.into(),
            release: number,
            secver: 0,
            min_from: 0,
            requires: Vec::new(),
            version: version(number),
            slot_size: slot.len() as u64,
            slot_sha256: [0; 32],
            root_hash,
        };
        change(&mut slot, &mut labels);
        labels.slot_sha256 = Sha256::digest(&slot).into();
        let (layer, frames) = layer(&slot);
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": labels.encode()},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let mut layer_listed = describe(MEDIA_LAYER, &layer);
        layer_listed.annotations = [
            (labels::FRAME_SIZE, FRAME_SIZE.to_string()),
            (labels::FRAMES, frames.encode_slot()),
            (labels::FRAMES_HEAD, frames.head.to_string()),
            (labels::FRAMES_TAIL, frames.tail.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let mut release = Release {
            slot,
            frames,
            layer,
            layer_listed,
            labels,
            config: config.to_string().into_bytes(),
            manifest: Vec::new(),
        };
        release.manifest = release.manifest_with(0);
        release
    }

    /// Its manifest, made longer until it has at least `size` bytes.
    pub fn manifest_with(&self, size: usize) -> Vec<u8> {
        let text = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": describe(MEDIA_CONFIG, &self.config),
            "layers": [self.layer_listed],
        });
        let mut bytes = text.to_string().into_bytes();
        bytes.resize(bytes.len().max(size), b' ');
        bytes
    }

    /// What its verified manifest says of it.
    pub fn described(&self) -> update_manifest::release::Release {
        update_manifest::release::Release {
            labels: self.labels.clone(),
            layer: self.layer_listed.clone(),
            frames: self.frames.clone(),
        }
    }

    /// How an index lists it.
    pub fn image(&self) -> Descriptor {
        describe(MEDIA_MANIFEST, &self.manifest)
    }

    /// Where the slot's frames begin and end in the layer.
    pub fn frames_span(&self) -> (u64, u64) {
        (self.frames.head, self.frames.offset(self.frames.slot.len()).unwrap())
    }

    /// Pushes the image under [`TAG`], unsigned.
    pub async fn publish(&self, client: &Registry) {
        client.push_blob(REPOSITORY, &self.layer).await.unwrap();
        client.push_blob(REPOSITORY, &self.config).await.unwrap();
        client.push_manifest(REPOSITORY, TAG, MEDIA_MANIFEST, &self.manifest).await.unwrap();
    }

    /// Signs the image with `key`, in the layout of cosign 3.
    pub async fn sign(&self, client: &Registry, key: &SigningKey) {
        let signature = sign_bundle(&self.image(), key);
        let digest = self.image().digest;
        client.push_signature(REPOSITORY, digest, &signature, Attachment::Referrer).await.unwrap();
    }
}

/// The version of the release with this number.
pub fn version(number: u64) -> String {
    format!("0.{number}.0")
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A slot image and its root hash.
fn slot(number: u64) -> (Vec<u8>, [u8; 32]) {
    let salt = [7; 32];
    let blocks = DATA_SIZE as u64 / 4096;
    let hash_size = 4096 + tree_size(blocks);
    let uki_at = DATA_SIZE as u64 + hash_size;
    // Padding, so that the trailers of two releases lie at different places.
    let trailer_at = align(uki_at + UKI_SIZE as u64).unwrap() + number * 4096;
    let mut slot = noise(number, DATA_SIZE);
    let header = Header { trailer_at }.encode();
    slot[..header.len()].copy_from_slice(&header);
    let mut tree = TreeBuilder::new(salt);
    tree.update(&slot);
    let tree = tree.finish();
    slot.extend_from_slice(&superblock([9; 16], blocks, &salt));
    slot.extend_from_slice(&tree.bytes);
    let uki = noise(number + 1000, UKI_SIZE);
    slot.extend_from_slice(&uki);
    slot.resize(usize::try_from(trailer_at).unwrap(), 0);
    let trailer = Trailer {
        data_size: DATA_SIZE as u64,
        hash_size,
        uki_at,
        uki_size: UKI_SIZE as u64,
        uki_sha256: Sha256::digest(&uki).into(),
        root_hash: tree.root,
        salt,
        release: number,
        secver: 0,
        version: version(number),
        product: PRODUCT.into(),
        arch: ARCH.into(),
        watchdogs: 0,
    };
    slot.extend_from_slice(&trailer.encode());
    (slot, tree.root)
}

/// The layer blob of a slot image, and where its frames are.
fn layer(slot: &[u8]) -> (Vec<u8>, FrameTable) {
    let frame = |plain: &[u8]| {
        let packed = zstd::bulk::compress(plain, 1).unwrap();
        ((u32::try_from(packed.len()).unwrap(), u32::try_from(plain.len()).unwrap()), packed)
    };
    let header = tar_header(slot.len() as u64).unwrap();
    let pieces = slot.chunks(usize::try_from(FRAME_SIZE).unwrap());
    let parts = std::iter::once(&header[..]).chain(pieces).chain([&[0; TAIL_SIZE][..]]);
    let (sizes, packed): (Vec<_>, Vec<_>) = parts.map(frame).unzip();
    let size = |index: usize| sizes[index].0;
    let last = sizes.len() - 1;
    let frames = FrameTable {
        head: size(0).into(),
        slot: (1..last).map(size).collect(),
        tail: size(last).into(),
    };
    ([packed.concat(), seek_table(&sizes)].concat(), frames)
}
