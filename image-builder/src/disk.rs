//! The disk image of a machine that has never run: table, ESP, boot record, slot A.
//!
//! Written sparsely and without root: the ESP is made as a file by `mkfs.fat` and filled by
//! mtools. The same release, configuration and disk identifier give the same bytes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use partition_layout::boot_state::{Event, ImageFacts, factory, step};
use partition_layout::disk::Disk;
use partition_layout::fresh::{self, Fresh};
use partition_layout::gpt::Table;
use partition_layout::guid::{self, Guid};
use partition_layout::layout::{FRESH, STATE_MIN};
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use partition_layout::slot_image::{TRAILER_SIZE, Trailer};
use sha2::{Digest, Sha256};

use crate::run;

/// Seconds since 1970 that the ESP's files and volume carry: fixed, so that builds repeat.
const ESP_TIME: &str = "1735689600";
/// Leads firmware that ended up in its shell to the loader.
const STARTUP: &str = include_str!("../../kernel/startup.nsh");

/// What the image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format; needs `qemu-img`.
    Qcow2,
}

/// What a disk is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The output folder of a build.
    pub release: PathBuf,
    /// SHA-256 of the release's image manifest.
    pub manifest_digest: [u8; 32],
    /// Configuration for the first boot, put on the ESP.
    pub config: Option<PathBuf>,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Logical sector size: 512 or 4096.
    pub sector_size: u32,
    /// Identifier of the partition table and of the boot record; none: derived from all the
    /// others, so that it is the same for every machine made so.
    pub disk_id: Option<Guid>,
    /// How the release in slot A begins.
    pub begins: Begins,
}

/// How the release of a fresh disk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// As the default: it starts at every boot, whether or not the record can be written.
    Default,
    /// On trial, with the tries of an update: a start counts only when it is on the disk, and
    /// when all are spent the slot stands behind whatever else can be started.
    OnTrial,
}

/// Makes the disk image `target`.
///
/// # Errors
/// The disk is too small, a part of the release is missing or damaged, or a tool fails.
pub fn make(recipe: &Recipe, format: Format, target: &Path) -> Result<()> {
    let smallest = FRESH.iter().map(|it| it.size).sum::<u64>() + STATE_MIN + (4 << 20);
    ensure!(recipe.size >= smallest, "a disk of {} bytes is less than {smallest}", recipe.size);
    let raw = target.with_extension("raw-part");
    let esp = target.with_extension("esp-part");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&raw)
        .with_context(|| format!("create {}", raw.display()))?;
    file.set_len(recipe.size).context("size the disk image")?;
    write_parts(recipe, file, &esp)?;
    remove(&esp)?;
    match format {
        Format::Raw => fs::rename(&raw, target)
            .with_context(|| format!("move the disk to {}", target.display()))?,
        Format::Qcow2 => {
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(target);
            run::quiet(&mut convert, "qemu-utils")?;
            remove(&raw)?;
        }
    }
    Ok(())
}

fn write_parts(recipe: &Recipe, file: File, esp: &Path) -> Result<()> {
    let seed = seed(recipe)?;
    let disk_id = recipe.disk_id.unwrap_or_else(|| id(&seed, "disk"));
    let mut disk = FileImage { file, size: recipe.size, sector_size: recipe.sector_size };
    let mut table = Table::new(disk_id, recipe.sector_size, recipe.size)
        .context("no room for a partition table")?;
    for part in FRESH {
        table = table
            .append(part.kind, id(&seed, part.name), part.name, Some(part.size))
            .with_context(|| format!("no room for partition {}", part.name))?;
    }
    make_esp(recipe, &seed, esp)?;
    let disk_id = recipe.disk_id.unwrap_or_else(|| id(&seed, "record")).0;
    let record = first_record(disk_id, image_facts(recipe)?, recipe.begins)?;
    let places = [extent(&table, recipe, guid::ESP)?, extent(&table, recipe, guid::SLOT_A)?];
    let fill = |disk: &mut FileImage| {
        let parts = [esp, &recipe.release.join("slot.img")];
        parts.into_iter().zip(places).try_for_each(|(from, to)| copy_sparse(from, &disk.file, to))
    };
    let fresh = Fresh { table: &table, disk_id, record: &record };
    // Nobody starts from it before it is made: nothing to read back.
    match fresh::write(&mut disk, &fresh, fill, |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(fresh::Error::Contents(error)) => Err(error),
        Err(other) => Err(anyhow::anyhow!("make a disk of {}: {other}", recipe.release.display())),
    }
}

fn first_record(disk_id: [u8; 16], facts: ImageFacts, begins: Begins) -> Result<Record> {
    let record = factory(disk_id, facts);
    match begins {
        Begins::Default => Ok(record),
        // The rules for it are those of an update, seen from the empty slot.
        Begins::OnTrial => step(&record, Slot::B, Event::Arm)
            .map(|step| step.record)
            .map_err(|refused| anyhow::anyhow!("put slot A on trial: {refused:?}")),
    }
}

/// First byte and size of the only partition of type `kind`.
fn extent(table: &Table, recipe: &Recipe, kind: Guid) -> Result<(u64, u64)> {
    let entry = table.find(kind).context("a partition of ours is not in the table")?;
    let unit = u64::from(recipe.sector_size);
    Ok((entry.first * unit, entry.sectors() * unit))
}

/// What every identifier of this disk is derived from.
fn seed(recipe: &Recipe) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    hasher.update(b"bascule disk 1");
    hasher.update(recipe.manifest_digest);
    hasher.update(recipe.size.to_le_bytes());
    hasher.update(recipe.sector_size.to_le_bytes());
    if let Some(Guid(disk_id)) = recipe.disk_id {
        hasher.update(disk_id);
    }
    if let Some(config) = &recipe.config {
        hasher.update(fs::read(config).with_context(|| format!("read {}", config.display()))?);
    }
    Ok(hasher.finalize().into())
}

/// An identifier of its own for `name`, in the form of a random (version 4) GUID.
fn id(seed: &[u8; 32], name: &str) -> Guid {
    let hash = Sha256::new().chain_update(seed).chain_update(name).finalize();
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hash) {
        *to = from;
    }
    // The third group is little-endian on disk: its version nibble is in byte 7.
    bytes[7] = (bytes[7] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Guid(bytes)
}

fn image_facts(recipe: &Recipe) -> Result<ImageFacts> {
    let path = recipe.release.join("slot.img");
    let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut bytes = vec![0; TRAILER_SIZE];
    file.seek(SeekFrom::End(-(TRAILER_SIZE as i64))).context("find the trailer")?;
    file.read_exact(&mut bytes).context("read the trailer")?;
    let trailer = Trailer::decode(&bytes)
        .map_err(|error| anyhow::anyhow!("{} has no trailer: {error:?}", path.display()))?;
    Ok(ImageFacts {
        release: trailer.release,
        secver: trailer.secver,
        digest: recipe.manifest_digest,
    })
}

fn make_esp(recipe: &Recipe, seed: &[u8; 32], path: &Path) -> Result<()> {
    let size = FRESH.iter().find(|it| it.kind == guid::ESP).map_or(0, |it| it.size);
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(size).context("size the ESP")?;
    let volume = id(seed, "volume").0;
    let volume = u32::from_le_bytes([volume[0], volume[1], volume[2], volume[3]]);
    let mut format = Command::new("mkfs.fat");
    format.args(["-F", "32", "-n", "BASCULE", "--invariant", "-i", &format!("{volume:08x}")]);
    // Small clusters: FAT32 is only FAT32 with at least 65,525 of them.
    let per_cluster = (4096 / recipe.sector_size).to_string();
    format.args(["-S", &recipe.sector_size.to_string(), "-s", &per_cluster]).arg(path);
    run::quiet(&mut format, "dosfstools")?;
    for folder in ["::/EFI", "::/EFI/BOOT", "::/EFI/bascule", "::/bascule"] {
        run::quiet(mtool("mmd", path).arg(folder), "mtools")?;
    }
    let startup = path.with_extension("startup-part");
    fs::write(&startup, STARTUP).with_context(|| format!("write {}", startup.display()))?;
    let mut files = vec![
        (startup.clone(), "::/startup.nsh"),
        (recipe.release.join("loader.efi"), "::/EFI/BOOT/BOOTX64.EFI"),
        (recipe.release.join("recovery.efi"), "::/EFI/bascule/recovery.efi"),
    ];
    files.extend(recipe.config.clone().map(|config| (config, "::/bascule/config.toml")));
    for (from, to) in files {
        if !from.exists() {
            bail!("{} is missing: build the release first", from.display());
        }
        run::quiet(mtool("mcopy", path).arg(&from).arg(to), "mtools")?;
    }
    remove(&startup)
}

/// An mtools command on the image `path`, with fixed times.
fn mtool(name: &str, path: &Path) -> Command {
    let mut command = Command::new(name);
    command.env("SOURCE_DATE_EPOCH", ESP_TIME).env("TZ", "UTC").env("MTOOLS_SKIP_CHECK", "1");
    command.arg("-i").arg(path);
    command
}

/// Copies a file to `at` of the disk, leaving out blocks of zeros.
fn copy_sparse(from: &Path, disk: &File, (at, size): (u64, u64)) -> Result<()> {
    let mut file = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let length = file.metadata().context("look at a part of the disk")?.len();
    ensure!(length <= size, "{} of {length} bytes is larger than its partition", from.display());
    let mut place = at;
    let (mut block, empty) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut block).with_context(|| format!("read {}", from.display()))?;
        let Some(data) = block.get(..read).filter(|data| !data.is_empty()) else { return Ok(()) };
        if !empty.starts_with(data) {
            disk.write_all_at(data, place).context("write the disk image")?;
        }
        place += read as u64;
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

/// A file as a disk. It is being made: nobody depends on its flushes.
struct FileImage {
    file: File,
    size: u64,
    sector_size: u32,
}

impl Disk for FileImage {
    type Error = std::io::Error;

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.file.read_exact_at(buf, at)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.file.write_all_at(data, at)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.file.flush()
    }
}
