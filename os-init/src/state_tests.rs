//! The state partition on sparse files, with the tools that the machine runs: `mkfs.ext4`,
//! `e2fsck`, `resize2fs`, `dumpe2fs`, `debugfs` (e2fsprogs) and `sgdisk` (gdisk).

use super::*;
use partition_layout::layout::{FRESH, MIB};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// A disk in a sparse file; each partition that is asked for is a sparse file of its own beside it.
struct Sparse {
    folder: PathBuf,
    sector_size: u32,
}

impl Partitions for Sparse {
    fn device(&self, number: u32, _start: u64, length: u64) -> Result<String, String> {
        self.resized(number, 0, length)?;
        Ok(self.partition(number).display().to_string())
    }

    fn resized(&self, number: u32, _start: u64, length: u64) -> Result<(), String> {
        let path = self.partition(number);
        let file = File::options().create(true).truncate(false).write(true).open(path);
        file.and_then(|file| file.set_len(length)).map_err(|e| e.to_string())
    }
}

impl Sparse {
    /// A disk as the installer leaves it: everything but state.
    fn new(name: &str, size: u64, sector_size: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("state-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = Self { folder, sector_size };
        File::create(made.path()).unwrap();
        made.set_len(size);
        let mut disk = made.open();
        let mut table = Table::new(Guid([1; 16]), sector_size, size).unwrap();
        for (number, part) in (2..).zip(FRESH) {
            let id = Guid([number; 16]);
            table = table.append(part.kind, id, part.name, Some(part.size)).unwrap();
        }
        disk.write(0, &table.protective_mbr()).unwrap();
        table.store(&mut disk).unwrap();
        made
    }

    fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn partition(&self, number: u32) -> PathBuf {
        self.folder.join(format!("partition-{number}"))
    }

    fn set_len(&self, size: u64) {
        File::options().write(true).open(self.path()).unwrap().set_len(size).unwrap();
    }

    fn open(&self) -> FileDisk {
        FileDisk::open_image(&self.path(), true, self.sector_size).unwrap()
    }

    /// What a boot does before it mounts. Returns the device and the length of its partition.
    fn boot(&self) -> (String, u64) {
        let mut disk = self.open();
        let device = find_or_make(&mut disk, self, &mut || {}).unwrap();
        check(&device, &self.folder.join("e2fsck.conf"), &mut || {}).unwrap();
        let (table, copy) = gpt::read(&mut disk).unwrap();
        assert_eq!(copy, Copy::Primary);
        let entry = table.find(guid::STATE).unwrap();
        assert_eq!(entry.attributes & UNFORMATTED, 0);
        (device, entry.sectors() * u64::from(table.sector_size))
    }

    /// sgdisk takes the sectors of a file for 512 bytes.
    fn table_is_clean(&self) {
        if self.sector_size == 512 {
            let said = tool("sgdisk", &["-v", self.path().to_str().unwrap()]);
            assert!(said.contains("No problems found"), "{said}");
        }
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // What stays behind is only disk space.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a tool says, when it is content.
fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("start {name}: {error}; run cargo xtask setup"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {text}{errors}");
    text
}

/// A field of the superblock as dumpe2fs names it.
fn field(device: &str, name: &str) -> String {
    let text = tool("dumpe2fs", &["-h", device]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name:?}: {text}")).trim().to_owned()
}

fn number(device: &str, name: &str) -> u64 {
    field(device, name).parse().unwrap()
}

/// The file system fills its partition, up to a block group that is too small to be one, and has
/// no fault.
fn is_whole(device: &str, length: u64) {
    assert_eq!(field(device, "Block size"), "4096");
    let size = number(device, "Block count") * 4096;
    assert!(size <= length && length - size < 128 * MIB, "{size} of {length}");
    // All of 16 TB takes minutes on a busy machine: there, what every mount needs.
    let how = if length < 4 << 40 { "-fn" } else { "-n" };
    tool("e2fsck", &[how, device]);
}

fn superblock(device: &str) -> [u8; 1024] {
    let mut bytes = [0; 1024];
    File::open(device).unwrap().read_exact_at(&mut bytes, 1024).unwrap();
    bytes
}

fn write_at(device: &str, at: u64, bytes: &[u8]) {
    File::options().write(true).open(device).unwrap().write_all_at(bytes, at).unwrap();
}

/// A disk that has booted, with a file `data` in its state; the device of that.
fn with_data(name: &str) -> (Sparse, String) {
    let disk = Sparse::new(name, 8 << 30, 512);
    let (device, _) = disk.boot();
    let data = disk.folder.join("data");
    fs::write(&data, "the user's").unwrap();
    tool("debugfs", &["-w", "-R", &format!("write {} data", data.display()), &device]);
    (disk, device)
}

/// ST-1: made at the disk's full size at once, with blocks of 4 KiB, whatever the size of disk and
/// sector; and nothing is written then that grows with the disk beyond all measure.
#[test]
fn the_first_boot_makes_a_whole_file_system_on_any_disk() {
    const GB: u64 = 1_000_000_000;
    for (size, sector_size) in [
        (16 * GB, 512),
        (16 * GB, 4096),
        // Beyond 2^31 and 2^32 sectors; the latter below ext4's own largest file.
        (2000 * GB, 512),
        (16_000 * GB, 4096),
    ] {
        let disk = Sparse::new(&format!("first-{size}-{sector_size}"), size, sector_size);
        let (device, length) = disk.boot();
        assert!(size - length < 6 << 30, "{length} of {size}");
        is_whole(&device, length);
        assert!(number(&device, "Inode count") >= length / (33 << 10), "an inode for 32 KiB");
        let features = field(&device, "Filesystem features");
        let mut made: Vec<&str> = features.split(' ').collect();
        let mut wanted: Vec<&str> = FEATURES.split(',').skip(1).map(str::trim).collect();
        made.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(made, wanted, "no tool's default");
        let written = fs::metadata(&device).unwrap().blocks() * 512;
        assert!(written < 512 * MIB, "{written} bytes");
        disk.table_is_clean();
        // Never a second time.
        let id = field(&device, "Filesystem UUID");
        assert_eq!(disk.boot(), (device.clone(), length));
        assert_eq!(field(&device, "Filesystem UUID"), id);
    }
}

/// GP-2: a larger disk is filled after one boot, again after the next growth, and after a power cut
/// between the growth of the partition and that of its file system.
#[test]
fn it_grows_with_its_disk_whenever_that_grows() {
    let (disk, device) = with_data("growth");
    let before = disk.boot().1;
    let mut larger: u64 = 8 << 30;
    for (more, cut) in [(56_u64 << 30, false), (10 << 30, true), (1 << 30, false)] {
        larger += more;
        disk.set_len(larger);
        let (_, length) = disk.boot();
        if cut {
            // The power goes here; the next boot finds a table that needs no growth.
            assert_eq!(disk.boot().1, length);
        }
        fill(&device, &mut || {}).unwrap();
        assert_eq!(length, before + larger - (8 << 30));
        is_whole(&device, length);
        disk.table_is_clean();
        assert_eq!(tool("debugfs", &["-R", "cat data", &device]), "the user's");
    }
    let (held, room) = sizes(&device).unwrap();
    assert_eq!((held, room), (number(&device, "Block count"), held));
}

/// GP-4: with the primary header destroyed the partition is found by the backup and its data kept,
/// and the table is mended.
#[test]
fn a_destroyed_primary_table_is_mended_and_nothing_is_formatted() {
    for sector_size in [512, 4096] {
        let disk = Sparse::new(&format!("header-{sector_size}"), 8 << 30, sector_size);
        let (device, length) = disk.boot();
        let id = field(&device, "Filesystem UUID");
        let mut open = disk.open();
        open.write(u64::from(sector_size), &vec![0; sector_size as usize]).unwrap();
        assert_eq!(gpt::read(&mut open).unwrap().1, Copy::Backup);
        // `boot` wants the primary back.
        assert_eq!(disk.boot(), (device.clone(), length));
        assert_eq!(field(&device, "Filesystem UUID"), id);
        disk.table_is_clean();
    }
}

/// ST-3: times of the superblock that lie in the future are no reason for a full check, not after a
/// cut, and not where somebody has set an interval between checks: none has taken place.
#[test]
fn a_clock_in_the_past_means_no_full_check() {
    let disk = Sparse::new("clock", 8 << 30, 512);
    let (device, _) = disk.boot();
    let set = |what: &str| tool("debugfs", &["-w", "-R", what, &device]);
    set("set_super_value checkinterval 86400");
    for cut in [false, true] {
        set("set_super_value lastcheck 20370101");
        set("set_super_value mtime 20370101");
        if cut {
            set("feature needs_recovery");
        }
        disk.boot();
        let checked = field(&device, "Last checked");
        assert_eq!(checked, "Thu Jan  1 00:00:00 2037", "cut: {cut}");
        assert_eq!(field(&device, "Filesystem state"), "clean");
        assert!(!field(&device, "Filesystem features").contains("needs_recovery"));
    }
}

/// Half a superblock is what a power cut leaves of it on sectors of 512 bytes: nothing is lost, after
/// a clean end and after none, whichever half is the old one.
#[test]
fn half_a_superblock_is_mended_from_its_copy() {
    for (half, cut) in [(0, false), (0, true), (1, false), (1, true)] {
        let (disk, device) = with_data(&format!("torn-{half}-{cut}"));
        if cut {
            tool("debugfs", &["-w", "-R", "feature needs_recovery", &device]);
        }
        let whole = superblock(&device);
        tool("debugfs", &["-w", "-R", "set_super_value mtime 20370101", &device]);
        let half = half * 512;
        write_at(&device, 1024 + half as u64, &whole[half..half + 512]);
        let alone = Command::new("/sbin/e2fsck").args(["-p", &device]).output().unwrap();
        assert_eq!(alone.status.code(), Some(8), "it is torn");
        let (_, length) = disk.boot();
        is_whole(&device, length);
        assert_eq!(tool("debugfs", &["-R", "cat data", &device]), "the user's");
    }
}

/// A copy that is damaged too is passed over; one of an earlier file system is none, and nothing is
/// written then.
#[test]
fn only_a_copy_of_the_same_file_system_mends_it() {
    let (disk, device) = with_data("copies");
    let check = || super::check(&device, &disk.folder.join("e2fsck.conf"), &mut || {});
    write_at(&device, 1024 + 0x3fc, &[1, 2, 3, 4]);
    write_at(&device, BACKUPS[0] * 4096, &[0; 1024]);
    check().unwrap();
    assert_eq!(tool("debugfs", &["-R", "cat data", &device]), "the user's");

    for (place, bytes) in [(0x68, &[7; 16][..]), (0x38, b"XF")] {
        let whole = superblock(&device);
        write_at(&device, 1024 + place, bytes);
        let before = fs::metadata(&device).unwrap().modified().unwrap();
        let why = check().unwrap_err();
        assert!(why.contains("/sbin/e2fsck: exit status: 8"), "{why}");
        assert_eq!(fs::metadata(&device).unwrap().modified().unwrap(), before, "{place:#x}");
        write_at(&device, 1024, &whole);
        check().unwrap();
    }
}

/// ST-5: what is full stays mounted for its owner; anything else that fails a write is broken.
#[test]
fn full_is_told_from_broken() {
    let disk = Sparse::new("full", 8 << 30, 512);
    let probe_at = disk.folder.join(".probe");
    probe(&disk.folder).unwrap();
    std::os::unix::fs::symlink("/dev/full", &probe_at).unwrap();
    let full = trouble(probe(&disk.folder).unwrap_err());
    assert!(matches!(full, Trouble::Full(_)), "{full:?}");
    assert!(!probe_at.is_symlink(), "what was tried is taken away");
    fs::create_dir(&probe_at).unwrap();
    let broken = trouble(probe(&disk.folder).unwrap_err());
    assert!(matches!(broken, Trouble::Broken(_)), "{broken:?}");
}
