//! The state partition: made at the disk's full size at first boot, grown later, checked, mounted.
//!
//! It is the user's data: nothing that holds data is ever formatted. The table entry carries
//! [`UNFORMATTED`] from its making until the file system is whole.
//!
//! | step | a power cut here leaves |
//! |---|---|
//! | table with the new entry, marked, stored | the old table, or the marked entry: formatted at the next boot |
//! | mkfs | the marked entry: formatted again |
//! | mark cleared, table stored | either; a whole file system is made once more at worst, still empty |
//! | table grown | a file system smaller than its partition: grown at the next boot |

use crate::console::{say, warn};
use kernel_abi::{FileDisk, block};
use nix::mount::{MsFlags, mount};
use partition_layout::disk::Disk;
use partition_layout::gpt::{self, Copy, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::layout::{STATE_MIN, STATE_NAME};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Attribute bit of an entry whose file system is not made yet.
pub const UNFORMATTED: u64 = 1 << 48;
/// Where state is mounted.
pub const MOUNT: &str = "/var";

/// 56 bytes into a superblock of ext4.
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];

/// Features of the file system, fixed to what the oldest supported release reads.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Why the machine is degraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is mounted and whole, and takes no write until somebody makes room.
    Full(String),
    /// It cannot be used; `/var` is a tmpfs.
    Broken(String),
}

/// Finds or makes, checks and mounts state. `pet` is called while programs run.
///
/// # Errors
/// [`Trouble`].
pub fn bring_up(name: &str, pet: &mut dyn FnMut()) -> Result<(), Trouble> {
    let outcome = mounted(name, pet)
        .map_err(Trouble::Broken)
        .and_then(|()| probe(Path::new(MOUNT)).map_err(trouble));
    if matches!(outcome, Err(Trouble::Broken(_))) {
        let tmpfs = Some("tmpfs");
        // If even this fails, services say what they miss.
        let _ = nix::mount::umount2(MOUNT, nix::mount::MntFlags::MNT_DETACH);
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if let Err(error) = mount(tmpfs, MOUNT, tmpfs, flags, Some("mode=755,size=25%")) {
            warn(&format!("mount a temporary /var: {error}"));
        }
    }
    for folder in ["/var/lib/bascule", "/var/log"] {
        if let Err(error) = fs::create_dir_all(folder) {
            warn(&format!("make {folder}: {error}"));
        }
    }
    outcome
}

fn mounted(name: &str, pet: &mut dyn FnMut()) -> Result<(), String> {
    let path = format!("/dev/{name}");
    let tried = |why: String| format!("state partition of {path}: {why}");
    let mut disk =
        FileDisk::open(Path::new(&path), true).map_err(|e| tried(format!("open: {e}")))?;
    let own = disk.file().try_clone().map_err(|e| tried(format!("open: {e}")))?;
    let kernel = Kernel { disk: own, name };
    let device = find_or_make(&mut disk, &kernel, pet).map_err(tried)?;
    check(&device, Path::new("/run/bascule/e2fsck.conf"), pet)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some(device.as_str()), MOUNT, Some("ext4"), flags, Some("errors=remount-ro"))
        .map_err(|e| format!("mount {device}: {e}"))?;
    // Best effort: a smaller file system than its partition works as well, and the next boot
    // tries again.
    if let Err(why) = fill(&device, pet) {
        warn(&format!("grow state: {why}"));
    }
    Ok(())
}

/// Whether state takes a write: full and read-only ones are found now, not by a service.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(".probe");
    let tried = fs::write(&path, [0; 4096]).and_then(|()| fs::File::open(&path)?.sync_all());
    let removed = fs::remove_file(&path);
    tried.and(removed)
}

/// Room can be made in what is full, so it stays where its owner finds it.
fn trouble(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Trouble::Full("the state partition is full; make room in /var".into())
        }
        _ => Trouble::Broken(format!("write to state: {error}")),
    }
}

/// How a partition becomes something that programs can open. Places and lengths in bytes.
trait Partitions {
    /// The device of partition `number` (from 0).
    fn device(&self, number: u32, start: u64, length: u64) -> Result<String, String>;
    /// The partition is longer now.
    fn resized(&self, number: u32, start: u64, length: u64) -> Result<(), String>;
}

/// The running kernel's partitions of the disk `name`.
struct Kernel<'a> {
    disk: fs::File,
    name: &'a str,
}

impl Partitions for Kernel<'_> {
    /// Tells the kernel of a partition that it does not know yet.
    fn device(&self, number: u32, start: u64, length: u64) -> Result<String, String> {
        for _ in 0..20 {
            if let Some(device) = crate::find_disk::partition_device(self.name, start) {
                return Ok(device);
            }
            // EBUSY: it appeared meanwhile.
            let _ = block::add_partition(&self.disk, number + 1, start, length);
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("the kernel has no device for it".into())
    }

    fn resized(&self, number: u32, start: u64, length: u64) -> Result<(), String> {
        block::resize_partition(&self.disk, number + 1, start, length).map_err(|e| e.to_string())
    }
}

/// The device of a state partition as large as the disk allows, with a file system.
fn find_or_make(
    disk: &mut FileDisk,
    partitions: &impl Partitions,
    pet: &mut dyn FnMut(),
) -> Result<String, String> {
    let Found { mut table, mended, grown } = table_of(disk, random_id)?;
    if mended {
        say("the primary partition table was damaged and is mended from the backup");
    }
    let (number, entry) = table
        .entries
        .iter()
        .find(|(_, entry)| entry.kind == guid::STATE)
        .cloned()
        .ok_or("there is more than one")?;
    let sector = u64::from(table.sector_size);
    let (start, length) = (entry.first * sector, entry.sectors() * sector);
    if grown {
        partitions.resized(number, start, length).map_err(|e| format!("grow: {e}"))?;
    }
    let device = partitions.device(number, start, length)?;
    if entry.attributes & UNFORMATTED != 0 {
        format(&device, pet)?;
        clear_mark(disk, &mut table, number)?;
    }
    Ok(device)
}

/// The table of a disk, with a state partition in it that reaches to the disk's end.
#[derive(Debug)]
pub struct Found {
    /// The table as it is on the disk.
    pub table: Table,
    /// The primary was damaged and is written again.
    pub mended: bool,
    /// The state partition was made larger; the kernel does not know yet.
    pub grown: bool,
}

/// Reads the table and does to it what is due: mends the primary from the backup, makes state larger
/// after the disk has grown, adds the entry at first boot with an `id` of its own. Writes nothing
/// where no table is whole.
///
/// # Errors
/// A message. A power cut or an error at any step leaves at least one whole table.
pub fn table_of<D: Disk<Error = io::Error>>(
    disk: &mut D,
    id: impl FnOnce() -> Result<[u8; 16], String>,
) -> Result<Found, String> {
    let (table, copy) = gpt::read(disk).map_err(|e| format!("read its table: {e:?}"))?;
    let mended = copy == Copy::Backup;
    if mended {
        table.mend(disk).map_err(|e| format!("mend its table: {e}"))?;
    }
    if table.find(guid::STATE).is_none() {
        return Ok(Found { table: add(disk, &table, id)?, mended, grown: false });
    }
    match table.grown(disk.size(), guid::STATE) {
        Some(larger) => {
            larger.store(disk).map_err(|e| format!("grow: {e}"))?;
            Ok(Found { table: larger, mended, grown: true })
        }
        None => Ok(Found { table, mended, grown: false }),
    }
}

/// Says in the table that the file system of entry `number` is whole.
///
/// # Errors
/// A message; it is then made once more at the next boot.
pub fn clear_mark<D: Disk<Error = io::Error>>(
    disk: &mut D,
    table: &mut Table,
    number: u32,
) -> Result<(), String> {
    for (index, made) in &mut table.entries {
        if *index == number {
            made.attributes &= !UNFORMATTED;
        }
    }
    table.store(disk).map_err(|e| format!("store its table: {e}"))
}

fn random_id() -> Result<[u8; 16], String> {
    let mut id = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut id))
        .map_err(|e| format!("random id: {e}"))?;
    Ok(id)
}

fn add<D: Disk<Error = io::Error>>(
    disk: &mut D,
    table: &Table,
    id: impl FnOnce() -> Result<[u8; 16], String>,
) -> Result<Table, String> {
    let mut id = id()?;
    // RFC 4122, version 4, in the mixed byte order of a GUID.
    id[7] = id[7] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let mut made = table
        .fitted(disk.size())
        .and_then(|table| table.append(guid::STATE, Guid(id), STATE_NAME, None))
        .ok_or("make it: there is no room on the disk")?;
    let Some((_, entry)) = made.entries.last_mut() else {
        return Err("make it: the table is empty".into());
    };
    if entry.sectors().saturating_mul(u64::from(table.sector_size)) < STATE_MIN {
        return Err(format!("make it: less than {} MiB are left", STATE_MIN >> 20));
    }
    // Whoever lost the table entry alone keeps the data: only what holds no file system is made anew.
    let place = entry.first.saturating_mul(u64::from(table.sector_size));
    if !holds_ext4(disk, place)? {
        entry.attributes |= UNFORMATTED;
    }
    made.store(disk).map_err(|e| format!("store its table: {e}"))?;
    Ok(made)
}

/// Whether an ext4 superblock lies at this place: 1024 bytes in, its magic another 56.
fn holds_ext4<D: Disk<Error = io::Error>>(disk: &mut D, place: u64) -> Result<bool, String> {
    let mut head = [0; 4096];
    disk.read(place, &mut head).map_err(|e| format!("read at {place}: {e}"))?;
    Ok(head[1080..1082] == EXT4_MAGIC)
}

fn format(device: &str, pet: &mut dyn FnMut()) -> Result<(), String> {
    say(&format!("first boot: making the state file system on {device}"));
    let mut command = Command::new("/sbin/mkfs.ext4");
    command.args(["-q", "-F", "-b", "4096", "-I", "256", "-O", FEATURES]).args([
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1",
        "-L",
        STATE_NAME,
        device,
    ]);
    Ok(run(&mut command, &[0], pet)?)
}

/// Grows the file system to the end of its partition where it is smaller, also when the power went
/// between the growth of the two.
fn fill(device: &str, pet: &mut dyn FnMut()) -> Result<(), String> {
    let (held, room) = sizes(device).map_err(|e| format!("read {device}: {e}"))?;
    if held >= room {
        return Ok(());
    }
    Ok(run(Command::new("/sbin/resize2fs").arg(device), &[0], pet)?)
}

/// Blocks of the file system on `device`, and those that it has room for.
fn sizes(device: &str) -> io::Result<(u64, u64)> {
    let mut file = fs::File::open(device)?;
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024)?;
    let field = |at: usize| partition_layout::bytes::u32_at(&superblock, at).unwrap_or_default();
    let blocks = u64::from(field(0x150)) << 32 | u64::from(field(4));
    // 1024 bytes times two to the power of this; ext4 has no blocks beyond 64 KiB.
    Ok((blocks, size >> (10 + field(24).min(6))))
}

/// What `e2fsck` exits with when state can be mounted. 1: mended. 2: mended, and wants a reboot only
/// for a mounted root. Both is 3.
const CHECKED: [i32; 4] = [0, 1, 2, 3];
/// The first copies of the superblock, in blocks of 4096 bytes: they start groups 1, 3 and 5.
const BACKUPS: [u64; 3] = [32_768, 98_304, 163_840];

/// Checks and mends what needs no decision.
///
/// The superblock is two sectors on most disks and the kernel writes it outside the journal, so a
/// power cut can leave one half of it old. Then the check starts from a copy, which `e2fsck -p` does
/// not try by itself.
fn check(device: &str, config: &Path, pet: &mut dyn FnMut()) -> Result<(), String> {
    // Without this a clock in the past means a full check at every boot.
    fs::write(config, "[options]\nbroken_system_clock = true\n")
        .map_err(|e| format!("write {}: {e}", config.display()))?;
    let e2fsck = |arguments: &[&str]| {
        let mut command = Command::new("/sbin/e2fsck");
        command.env("E2FSCK_CONFIG", config).arg("-p").args(arguments).arg(device);
        command
    };
    let failed = match run(&mut e2fsck(&[]), &CHECKED, pet) {
        Ok(()) => return Ok(()),
        Err(failed) => failed,
    };
    // 8: it could not be opened. Where it could, its own superblock is the better one.
    if failed.code == Some(8) {
        for block in BACKUPS {
            if !is_copy(device, block).map_err(|e| format!("read {device}: {e}"))? {
                continue;
            }
            let place = ["-b", &block.to_string(), "-B", "4096"];
            match run(&mut e2fsck(&place), &CHECKED, pet) {
                Ok(()) => {
                    say(&format!("the superblock of {device} was damaged; mended from its copy"));
                    return Ok(());
                }
                Err(failed) => {
                    warn(&format!("check {device} by the copy in {block}: {}", failed.why))
                }
            }
        }
    }
    Err(failed.into())
}

/// Whether `block` holds a copy of the superblock of the very file system on `device`: what somebody
/// else has put there, or an earlier file system, is no copy. Beyond the end there is none.
fn is_copy(device: &str, block: u64) -> io::Result<bool> {
    let file = fs::File::open(device)?;
    let (mut first, mut copy) = ([0; 1024], [0; 1024]);
    file.read_exact_at(&mut first, 1024)?;
    match file.read_exact_at(&mut copy, block * 4096) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let uuid = 0x68..0x78;
    Ok(first[0x38..0x3a] == EXT4_MAGIC
        && copy[0x38..0x3a] == EXT4_MAGIC
        && first[uuid.clone()] == copy[uuid])
}

/// A program that did not do what it was started for.
#[derive(Debug)]
struct Failed {
    /// What it exited with, where it ran to its end.
    code: Option<i32>,
    why: String,
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.why
    }
}

/// Runs a program to its end, petting the watchdog meanwhile.
fn run(command: &mut Command, fine: &[i32], pet: &mut dyn FnMut()) -> Result<(), Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| Failed { code: None, why };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("start {program}: {e}")))?;
    let status = loop {
        pet();
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(failed(format!("wait for {program}: {error}"))),
        }
    };
    if status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Its words are a help, not a need.
        let _ = stderr.take(512).read_to_string(&mut words);
    }
    let why = format!("{program}: {status}: {}", words.trim().replace('\n', " "));
    Err(Failed { code: status.code(), why })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
