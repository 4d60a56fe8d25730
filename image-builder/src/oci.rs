//! The container image: one layer, a tar of one file, the slot, in frames of their own.
//!
//! | frame | content |
//! |---|---|
//! | 0 | the tar header |
//! | 1… | the slot, [`FRAME_SIZE`] each, the last may be shorter |
//! | last | the tar's closing zeros |
//! | skippable | the table of the zstd seekable format, for stock tools |
//!
//! Written as an OCI layout: the image under its tag, and its signature in both layouts of cosign,
//! under the tags by which a registry without the referrers API finds them.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use partition_layout::frames::{self, FILE_NAME, FRAME_SIZE, FrameTable, TAIL_SIZE};
use partition_layout::labels::{self, ImageLabels};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use update_manifest::digest::Digest;
use update_manifest::oci::{Descriptor, MEDIA_CONFIG, MEDIA_LAYER, MEDIA_MANIFEST};
use update_manifest::sign::{self, SignatureArtifact, SigningKey};

use crate::compress::{self, Compressor};

/// What an image is made of.
pub struct Recipe<'a> {
    /// The slot image.
    pub slot: &'a Path,
    /// What it says of itself; size and hash are filled in from the file.
    pub labels: ImageLabels,
    /// Time of the build in seconds since 1970, from the spec: builds repeat.
    pub created: &'a str,
    /// zstd level.
    pub level: i32,
    /// Folder that keeps compressed frames for the next build; none: nothing is kept.
    pub cache: Option<&'a Path>,
    /// Signing key.
    pub key: &'a SigningKey,
    /// Name of the repository for people who read a signature; nobody trusts it.
    pub reference: &'a str,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Size of the layer in bytes.
    pub layer_size: u64,
    /// Bytes that the form of a container image adds to the slot's seekable frames: the frames of
    /// the tar's header and end.
    pub overhead: u64,
    /// The labels as written.
    pub labels: ImageLabels,
}

/// The layer and what its annotations say.
struct Layer {
    descriptor: Descriptor,
    diff_id: Digest,
    slot_sha256: [u8; 32],
    slot_size: u64,
    overhead: u64,
}

/// Writes the layout to the folder `layout`, which must not exist. `progress` is told the bytes of
/// the slot that are done.
///
/// # Errors
/// A file cannot be read or written, or the slot is too large for its form.
pub fn write(recipe: &Recipe, layout: &Path, progress: &dyn Fn(u64)) -> Result<Written> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
    let layer = write_layer(recipe, &blobs, progress)?;
    let labels = ImageLabels {
        slot_size: layer.slot_size,
        slot_sha256: layer.slot_sha256,
        ..recipe.labels.clone()
    };
    let config = json!({
        "created": recipe.created,
        "architecture": go_architecture(&labels.arch),
        "os": "linux",
        "config": {"Labels": labels.encode()},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.to_string()]},
        "history": [{"created": recipe.created, "created_by": "image-builder"}],
    });
    let config = blob(&blobs, &serde_json::to_vec(&config).context("encode config")?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": {"mediaType": MEDIA_CONFIG, "digest": config.0.to_string(), "size": config.1},
        "layers": [layer.descriptor],
    });
    let manifest = serde_json::to_vec(&manifest).context("encode manifest")?;
    let (digest, _) = blob(&blobs, &manifest)?;
    let image = sign::describe(MEDIA_MANIFEST, &manifest);

    let bundle = sign::sign_bundle(&image, recipe.key);
    let simple = sign::sign_simple(digest, recipe.reference, recipe.key);
    for artifact in [&bundle, &simple] {
        store(&blobs, artifact)?;
    }
    let referrers = sign::merge_into_index(None, bundle.descriptor.clone())
        .map_err(|error| anyhow::anyhow!("list the signature: {error}"))?;
    blob(&blobs, &referrers)?;
    let referrers = sign::describe(update_manifest::oci::MEDIA_INDEX, &referrers);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": update_manifest::oci::MEDIA_INDEX,
        "manifests": [
            tagged(&image, &labels.version)?,
            tagged(&simple.descriptor, &digest.signature_tag())?,
            tagged(&referrers, &digest.referrers_tag())?,
        ],
    });
    let index = serde_json::to_vec_pretty(&index).context("encode index")?;
    fs::write(layout.join("index.json"), index).context("write index.json")?;
    let version = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";
    fs::write(layout.join("oci-layout"), version).context("write oci-layout")?;
    Ok(Written { digest, layer_size: layer.descriptor.size, overhead: layer.overhead, labels })
}

/// The architecture in the words of container tools, which know Go's.
fn go_architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn write_layer(recipe: &Recipe, blobs: &Path, progress: &dyn Fn(u64)) -> Result<Layer> {
    let slot_file =
        File::open(recipe.slot).with_context(|| format!("open slot {}", recipe.slot.display()))?;
    let slot_size = slot_file.metadata().context("look at the slot")?.len();
    ensure!(slot_size > 0, "slot {} is empty", recipe.slot.display());
    let mut slot = BufReader::new(slot_file);
    let part = blobs.join("layer.part");
    let file = File::create(&part).with_context(|| format!("create {}", part.display()))?;
    let compressor = Compressor::new(recipe.level, recipe.cache)?;
    let mut out = Frames::new(BufWriter::new(file));
    let mut slot_hash = Sha256::new();

    let header = frames::tar_header(slot_size).context("the slot is too large for a tar")?;
    out.frame(&header, &compressor.frame(&header)?)?;
    let mut done = 0;
    while done < slot_size {
        let blocks = next_blocks(&mut slot, slot_size - done)?;
        for (block, frame) in blocks.iter().zip(compressor.frames(&blocks)?) {
            slot_hash.update(block);
            out.frame(block, &frame)?;
            done += block.len() as u64;
        }
        progress(done);
    }
    let tail = [0; TAIL_SIZE];
    out.frame(&tail, &compressor.frame(&tail)?)?;
    compressor.tidy()?;
    let finished = out.finish()?;

    let path = blobs.join(finished.digest.hex());
    fs::rename(&part, &path).with_context(|| format!("move the layer to {}", path.display()))?;
    let table = finished.table;
    let mut descriptor = Descriptor {
        media_type: MEDIA_LAYER.to_owned(),
        digest: finished.digest,
        size: finished.size,
        artifact_type: None,
        platform: None,
        annotations: Default::default(),
    };
    for (key, value) in [
        (labels::TITLE, FILE_NAME.to_owned()),
        (labels::FRAME_SIZE, FRAME_SIZE.to_string()),
        (labels::FRAMES, table.encode_slot()),
        (labels::FRAMES_HEAD, table.head.to_string()),
        (labels::FRAMES_TAIL, table.tail.to_string()),
    ] {
        descriptor.annotations.insert(key.to_owned(), value);
    }
    Ok(Layer {
        overhead: table.head + table.tail,
        descriptor,
        diff_id: finished.diff_id,
        slot_sha256: slot_hash.finalize().into(),
        slot_size,
    })
}

/// The next blocks of the slot, as many as are compressed at a time; `left` bytes are to come.
fn next_blocks(slot: &mut impl Read, mut left: u64) -> Result<Vec<Vec<u8>>> {
    let mut blocks = Vec::new();
    while left > 0 && blocks.len() < compress::batch() {
        let mut block = vec![0; usize::try_from(FRAME_SIZE.min(left))?];
        slot.read_exact(&mut block).context("read the slot")?;
        left -= block.len() as u64;
        blocks.push(block);
    }
    Ok(blocks)
}

/// Writes frames and keeps account of them.
struct Frames<W: Write> {
    out: W,
    compressed: Sha256,
    plain: Sha256,
    sizes: Vec<(u32, u32)>,
    size: u64,
}

struct Finished {
    digest: Digest,
    diff_id: Digest,
    size: u64,
    table: FrameTable,
}

impl<W: Write> Frames<W> {
    fn new(out: W) -> Self {
        Self { out, compressed: Sha256::new(), plain: Sha256::new(), sizes: Vec::new(), size: 0 }
    }

    /// Writes `frame`, which holds `block`.
    fn frame(&mut self, block: &[u8], frame: &[u8]) -> Result<()> {
        self.plain.update(block);
        self.sizes.push((u32::try_from(frame.len())?, u32::try_from(block.len())?));
        self.put(frame)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.compressed.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes).context("write the layer")
    }

    fn finish(mut self) -> Result<Finished> {
        let table = frames::seek_table(&self.sizes);
        self.put(&table)?;
        self.out.flush().context("write the layer")?;
        let mut sizes = self.sizes.iter().map(|(compressed, _)| *compressed);
        let head = u64::from(sizes.next().context("layer without frames")?);
        let tail = u64::from(sizes.next_back().context("layer without frames")?);
        Ok(Finished {
            digest: Digest(self.compressed.finalize().into()),
            diff_id: Digest(self.plain.finalize().into()),
            size: self.size,
            table: FrameTable { head, slot: sizes.collect(), tail },
        })
    }
}

fn store(blobs: &Path, artifact: &SignatureArtifact) -> Result<()> {
    for bytes in [&artifact.config, &artifact.layer, &artifact.manifest] {
        blob(blobs, bytes)?;
    }
    Ok(())
}

fn blob(blobs: &Path, bytes: &[u8]) -> Result<(Digest, usize)> {
    let digest = Digest::of(bytes);
    let path = blobs.join(digest.hex());
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok((digest, bytes.len()))
}

fn tagged(descriptor: &Descriptor, tag: &str) -> Result<Value> {
    let mut named = descriptor.clone();
    named.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
    serde_json::to_value(named).context("encode descriptor")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    fn labels() -> ImageLabels {
        ImageLabels {
            product: "bascule".into(),
            kind: labels::KIND_OS.into(),
            arch: "x86_64".into(),
            release: 7,
            secver: 1,
            min_from: 0,
            requires: Vec::new(),
            version: "0.7.0".into(),
            slot_size: 0,
            slot_sha256: [0; 32],
            root_hash: [5; 32],
        }
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("oci-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn built(folder: &Path, name: &str, size: usize) -> (Written, Vec<u8>) {
        // Not compressible and not periodic: frames differ.
        let mut state = 1_u32;
        let slot: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(size)
        .collect();
        let path = folder.join("slot.img");
        fs::write(&path, &slot).unwrap();
        let key = SigningKey::from_entropy(&[3; 32]).unwrap();
        let recipe = Recipe {
            slot: &path,
            labels: labels(),
            created: "2025-01-01T00:00:00Z",
            level: 3,
            cache: None,
            key: &key,
            reference: "bascule/os",
        };
        (write(&recipe, &folder.join(name), &|_| ()).unwrap(), slot)
    }

    #[test]
    fn stock_tar_unpacks_the_layer_to_the_slot() {
        let folder = folder("tar");
        let (written, slot) = built(&folder, "layout", 3_000_000);
        let index: Value =
            serde_json::from_slice(&fs::read(folder.join("layout/index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], written.digest.to_string());
        let blobs = folder.join("layout/blobs/sha256");
        let manifest: Value =
            serde_json::from_slice(&fs::read(blobs.join(written.digest.hex())).unwrap()).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let layer = blobs.join(layer.trim_start_matches("sha256:"));
        let mut tar = Command::new("tar");
        tar.args(["--zstd", "-xOf"]).arg(&layer).arg("slot.img");
        let unpacked = crate::run::output(&mut tar, "tar, zstd").unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(unpacked == slot, "the slot comes out of the layer unchanged");
        assert!(written.overhead <= 1024, "the form costs {} bytes", written.overhead);
        assert_eq!(written.labels.slot_size, 3_000_000);
    }

    #[test]
    fn the_same_slot_gives_the_same_digest() {
        let folder = folder("same");
        let (one, _) = built(&folder, "one", 100_000);
        let (two, _) = built(&folder, "two", 100_000);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(one, two);
    }
}
