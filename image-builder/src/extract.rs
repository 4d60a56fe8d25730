//! What is in a release: the slot image out of an OCI layout, and a slot image's parts.
//!
//! Nothing is handed out unchecked: blobs against their digests, the slot against the image's
//! labels, every part of it against the trailer, and the trailer against the kernel image. What
//! a *signature* says is `osupdate verify`'s and cosign's to answer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use partition_layout::frames::FILE_NAME;
use partition_layout::labels::ImageLabels;
use partition_layout::verity::hex;
use serde_json::{Value, json};
use update_manifest::oci::ImageConfig;

use crate::archive;
use crate::layout::Layout;
use crate::pe;
use crate::slot::{self, Whole};

/// Part of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "release", derive(clap::ValueEnum))]
pub enum Part {
    /// The whole slot image, `slot.img`.
    Slot,
    /// The file system, `root.erofs`.
    Root,
    /// The verity superblock and tree, `root.verity`.
    Verity,
    /// The kernel image, `uki.efi`.
    Uki,
    /// What header, trailer, kernel image and labels say, `facts.json`.
    Facts,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Slot, Self::Root, Self::Verity, Self::Uki, Self::Facts];

    fn file_name(self) -> &'static str {
        match self {
            Self::Slot => FILE_NAME,
            Self::Root => "root.erofs",
            Self::Verity => "root.verity",
            Self::Uki => "uki.efi",
            Self::Facts => "facts.json",
        }
    }
}

/// Writes `parts` of `source` into the folder `out`; what the release says of itself. `source` is
/// an OCI layout, the output folder of a build, or a slot image: a file, or a slot's partition.
///
/// # Errors
/// `source` is neither, or is not what it says of itself: then nothing is written. A file of that
/// name is there already.
pub fn extract(source: &Path, parts: &BTreeSet<Part>, out: &Path) -> Result<Value> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    if !source.is_dir() {
        return write_parts(source, None, parts, out);
    }
    let layout = Layout::open(source)?;
    let unpacked = out.join("slot.part");
    let facts = labels(&layout).and_then(|labels| {
        unpack(&layout, &labels, &unpacked)?;
        write_parts(&unpacked, Some((&layout, &labels)), parts, out)
    });
    if unpacked.exists() {
        fs::remove_file(&unpacked).with_context(|| format!("remove {}", unpacked.display()))?;
    }
    facts
}

fn labels(layout: &Layout) -> Result<ImageLabels> {
    let config = layout.read(&layout.manifest.config)?;
    let config = ImageConfig::parse(&config).map_err(|error| anyhow!("image config: {error}"))?;
    ImageLabels::decode(&config.labels()).map_err(|error| anyhow!("not an OS image: {error}"))
}

/// Unpacks the layout's layer to `target`.
fn unpack(layout: &Layout, labels: &ImageLabels, target: &Path) -> Result<()> {
    let [layer] = layout.manifest.layers.as_slice() else {
        anyhow::bail!("{} layers instead of one", layout.manifest.layers.len());
    };
    let path = layout.blob(layer);
    ensure!(
        archive::sha256(&path)? == layer.digest.hex(),
        "{} is not what its name says",
        path.display()
    );
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let reader = zstd::Decoder::new(BufReader::new(file)).context("start zstd")?;
    let mut tar = tar::Archive::new(reader);
    let mut entries = tar.entries().context("read the layer")?;
    let mut slot = entries.next().context("the layer is empty")?.context("read the layer")?;
    ensure!(
        *slot.path_bytes() == *FILE_NAME.as_bytes() && slot.size() == labels.slot_size,
        "the layer does not begin with a {FILE_NAME} of {} bytes",
        labels.slot_size
    );
    let mut to = File::create(target).with_context(|| format!("create {}", target.display()))?;
    io::copy(&mut slot, &mut to).context("unpack the layer")?;
    ensure!(entries.next().is_none(), "the layer holds more than {FILE_NAME}");
    Ok(())
}

fn write_parts(
    slot: &Path,
    image: Option<(&Layout, &ImageLabels)>,
    parts: &BTreeSet<Part>,
    out: &Path,
) -> Result<Value> {
    let whole = slot::check(slot)?;
    if let Some((_, labels)) = image {
        agree(&whole, labels)?;
    }
    let facts = facts(&whole, image)?;
    let trailer = &whole.trailer;
    for part in parts {
        let target = out.join(part.file_name());
        match part {
            Part::Slot => copy(slot, 0, whole.size, &target)?,
            Part::Root => copy(slot, 0, trailer.data_size, &target)?,
            Part::Verity => copy(slot, trailer.data_size, trailer.hash_size, &target)?,
            Part::Uki => write(&target, &whole.uki)?,
            Part::Facts => write(&target, format!("{facts:#}\n").as_bytes())?,
        }
    }
    Ok(facts)
}

/// Checks that the image promises the slot that it holds.
fn agree(whole: &Whole, labels: &ImageLabels) -> Result<()> {
    let trailer = &whole.trailer;
    for (label, same) in [
        ("slot.size", whole.size == labels.slot_size),
        ("slot.sha256", whole.sha256 == labels.slot_sha256),
        ("slot.root-hash", trailer.root_hash == labels.root_hash),
        ("release", trailer.release == labels.release),
        ("secver", trailer.secver == labels.secver),
        ("version", trailer.version == labels.version),
        ("product", trailer.product == labels.product),
        ("arch", trailer.arch == labels.arch),
    ] {
        ensure!(same, "the image's label {label} is not what its slot says");
    }
    Ok(())
}

fn facts(whole: &Whole, image: Option<(&Layout, &ImageLabels)>) -> Result<Value> {
    let text = |name: &str| -> Result<String> {
        let section = pe::section(&whole.uki, name).context("kernel image")?;
        Ok(String::from_utf8_lossy(section).into_owned())
    };
    let (_, signatures) = pe::certificates(&whole.uki).context("kernel image")?;
    let trailer = &whole.trailer;
    let image = image.map(|(layout, labels)| {
        json!({ "digest": layout.image.digest.to_string(), "labels": labels.encode() })
    });
    Ok(json!({
        "image": image,
        "slot": { "size": whole.size, "sha256": hex(&whole.sha256) },
        "header": { "trailer_at": whole.header.trailer_at },
        "trailer": {
            "data_size": trailer.data_size,
            "hash_size": trailer.hash_size,
            "uki_at": trailer.uki_at,
            "uki_size": trailer.uki_size,
            "uki_sha256": hex(&trailer.uki_sha256),
            "root_hash": hex(&trailer.root_hash),
            "salt": hex(&trailer.salt),
            "release": trailer.release,
            "secver": trailer.secver,
            "version": trailer.version,
            "product": trailer.product,
            "arch": trailer.arch,
            "watchdogs": trailer.watchdogs,
        },
        "uki": {
            "kernel": text(".uname")?,
            "command_line": text(".cmdline")?,
            "os_release": text(".osrel")?,
            "signatures": signatures.len(),
        },
    }))
}

fn copy(from: &Path, at: u64, size: u64, target: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    source.seek(SeekFrom::Start(at)).with_context(|| format!("read {}", from.display()))?;
    let mut to = new_file(target)?;
    let copied = io::copy(&mut source.take(size), &mut to)
        .with_context(|| format!("write {}", target.display()))?;
    ensure!(copied == size, "{} ended early", from.display());
    Ok(())
}

fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    new_file(target)?.write_all(bytes).with_context(|| format!("write {}", target.display()))
}

/// Nothing is overwritten: it may be what is being read.
fn new_file(target: &Path) -> Result<File> {
    File::create_new(target).with_context(|| format!("create {}", target.display()))
}
