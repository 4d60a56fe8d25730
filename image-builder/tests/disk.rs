//! A fresh disk, looked at by stock tools and by our own readers, for both sector sizes.
//! Of FW-7: the ESP is a true FAT32 with the type that firmware looks for.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use image_builder::disk::{Begins, Format, Recipe, make};
use partition_layout::boot_state::{Choice, LoaderPlan, Start};
use partition_layout::disk::{Disk, Region};
use partition_layout::gpt;
use partition_layout::guid::{self, Guid};
use partition_layout::places;
use partition_layout::record::{Fault, Record};
use partition_layout::slot::Slot;
use partition_layout::slot_image::Trailer;

const SIZE: u64 = 6 << 30;
/// c12a7328-f81f-11d2-ba4b-00a0c93ec93b, by which firmware finds an ESP, as it lies on a disk.
const ESP_TYPE: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

struct ReadOnly {
    file: File,
    sector_size: u32,
}

impl Disk for ReadOnly {
    type Error = std::io::Error;

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.file.read_exact_at(buf, at)
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Self::Error> {
        Err(std::io::Error::other("read only"))
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The output folder of a build, as far as a disk needs it.
fn release(folder: &Path) -> PathBuf {
    let mut slot = vec![3; 1 << 20];
    let trailer = Trailer {
        data_size: 4096,
        hash_size: 4096,
        uki_at: 8192,
        uki_size: 4096,
        uki_sha256: [1; 32],
        root_hash: [2; 32],
        salt: [3; 32],
        release: 7,
        secver: 2,
        version: "0.7.0".into(),
        product: "bascule".into(),
        arch: "amd64".into(),
        watchdogs: 0,
    };
    slot.extend(trailer.encode());
    fs::write(folder.join("slot.img"), slot).unwrap();
    fs::write(folder.join("loader.efi"), b"loader").unwrap();
    fs::write(folder.join("recovery.efi"), vec![9; 3 << 20]).unwrap();
    fs::write(folder.join("config.toml"), "hostname = \"x\"\n").unwrap();
    folder.to_path_buf()
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A folder of its own with a release in it, and a recipe of a disk from that.
fn recipe(name: &str, sector_size: u32) -> (PathBuf, Recipe) {
    let folder = std::env::temp_dir().join(format!("disk-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let recipe = Recipe {
        release: release(&folder),
        manifest_digest: [6; 32],
        config: Some(folder.join("config.toml")),
        size: SIZE,
        sector_size,
        disk_id: None,
        begins: Begins::Default,
    };
    (folder, recipe)
}

/// What our own readers find: the table, the identifier of the record, and the record.
fn contents(path: &Path, sector_size: u32) -> (gpt::Table, [u8; 16], Record) {
    let mut disk = ReadOnly { file: File::open(path).unwrap(), sector_size };
    let (table, copy) = gpt::read(&mut disk).unwrap();
    assert_eq!(copy, gpt::Copy::Primary);
    let (at, size) = extent(&table, guid::RECORD);
    let loaded = places::load(&mut Region::new(&mut disk, at, size).unwrap()).unwrap();
    (table, loaded.disk_id, loaded.newest.unwrap().1)
}

/// First byte and size of a partition.
fn extent(table: &gpt::Table, kind: Guid) -> (u64, u64) {
    let (entry, unit) = (table.find(kind).unwrap(), u64::from(table.sector_size));
    (entry.first * unit, entry.sectors() * unit)
}

fn check(sector_size: u32) {
    let (folder, recipe) = recipe(&sector_size.to_string(), sector_size);
    let (one, two) = (folder.join("one.raw"), folder.join("two.raw"));
    make(&recipe, Format::Raw, &one).unwrap();
    make(&recipe, Format::Raw, &two).unwrap();
    // Knows what is a hole in both: six gigabytes of it.
    said(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).args([&one, &two]));
    if sector_size == 512 {
        let text = said(Command::new("sgdisk").arg("-v").arg(&one));
        assert!(text.contains("No problems found"), "{text}");
    }

    let (table, _, record) = contents(&one, sector_size);
    // sgdisk takes every file for a disk of small sectors; partx can be told.
    let mut partx = Command::new("partx");
    partx.args(["--raw", "--noheadings", "--output", "NAME,START,SECTORS"]);
    let listed = said(partx.args(["--sector-size", &sector_size.to_string()]).arg(&one));
    let mut wanted = String::new();
    for (name, kind, mib) in [
        ("bascule-esp", guid::ESP, 512),
        ("bascule-record", guid::RECORD, 16),
        ("bascule-slot-a", guid::SLOT_A, 2048),
        ("bascule-slot-b", guid::SLOT_B, 2048),
    ] {
        let (at, size) = extent(&table, kind);
        assert_eq!(size, mib << 20, "{name}");
        // It counts in sectors of 512 bytes whatever the disk's are.
        wanted += &format!("{name} {} {}\n", at / 512, size / 512);
    }
    assert_eq!(listed, wanted);

    let mut plan = LoaderPlan::new(&record, Start { nonce: [1; 16], rtc_s: 1 });
    assert!(matches!(plan.choose(), Choice::Start { slot: Slot::A, .. }), "{record:?}");
    assert_eq!(record.slot(Slot::A).release, 7);
    assert_eq!((record.default, record.trial), (Slot::A, None));

    // The type of the first entry, without our own reader: the entries begin at the third sector.
    let mut kind = [0; 16];
    File::open(&one).unwrap().read_exact_at(&mut kind, 2 * u64::from(sector_size)).unwrap();
    assert_eq!(kind, ESP_TYPE);
    check_esp(&one, extent(&table, guid::ESP), sector_size, &folder.join("esp.img"));
    fs::remove_dir_all(&folder).unwrap();
}

fn check_esp(disk: &Path, (at, size): (u64, u64), sector_size: u32, esp: &Path) {
    let (from, to) = (File::open(disk).unwrap(), File::create(esp).unwrap());
    to.set_len(size).unwrap();
    let (mut block, empty) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for place in (0..size).step_by(block.len()) {
        from.read_exact_at(&mut block, at + place).unwrap();
        if block != empty {
            to.write_all_at(&block, place).unwrap();
        }
    }
    let text = said(Command::new("fsck.fat").args(["-n", "-v"]).arg(esp));
    assert!(text.contains("2 FATs, 32 bit entries"), "{text}");
    assert!(text.contains(&format!("{sector_size} bytes per logical sector")), "{text}");
    let clusters: u64 = text
        .lines()
        .find_map(|line| line.rsplit_once('/')?.1.strip_suffix(" clusters")?.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    assert!(clusters >= 65_525, "FAT32 in name only: {clusters} clusters");
    let listed = said(Command::new("mdir").arg("-/").arg("-b").arg("-i").arg(esp));
    for name in ["BOOTX64.EFI", "recovery.efi", "config.toml", "startup.nsh"] {
        assert!(listed.contains(name), "{name} is not on the ESP: {listed}");
    }
}

#[test]
fn a_disk_with_small_sectors() {
    check(512);
}

#[test]
fn a_disk_with_large_sectors() {
    check(4096);
}

#[test]
fn a_disk_gets_the_identifier_that_it_is_given() {
    let (folder, plain) = recipe("id", 512);
    let id = Guid::parse("6f1d2b8c-0c1f-4d5e-9a3b-2f4e5d6c7b8a").unwrap();
    let given = Recipe { disk_id: Some(id), ..plain.clone() };
    let path = folder.join("disk.raw");
    make(&plain, Format::Raw, &path).unwrap();
    let (derived, derived_id, _) = contents(&path, 512);
    make(&given, Format::Raw, &path).unwrap();
    let (table, record_id, _) = contents(&path, 512);
    let text = said(Command::new("sgdisk").arg("-p").arg(&path));
    fs::remove_dir_all(&folder).unwrap();

    assert_eq!((table.disk, record_id), (id, id.0));
    assert!(derived.disk != id && derived_id != id.0, "{derived:?}");
    assert!(text.contains("6F1D2B8C-0C1F-4D5E-9A3B-2F4E5D6C7B8A"), "{text}");
    // Two disks in one machine share no partition's identifier either.
    for ((_, one), (_, other)) in derived.entries.iter().zip(&table.entries) {
        assert_ne!(one.id, other.id, "{}", one.name);
    }
}

#[test]
fn a_disk_on_trial_uses_up_its_tries_and_is_then_the_last_resort() {
    let (folder, plain) = recipe("trial", 512);
    let path = folder.join("disk.raw");
    make(&Recipe { begins: Begins::OnTrial, ..plain }, Format::Raw, &path).unwrap();
    let (_, _, mut record) = contents(&path, 512);
    fs::remove_dir_all(&folder).unwrap();

    assert_eq!((record.trial, record.tries, record.clean), (Some(Slot::A), 3, 8));
    assert!(!record.slot(Slot::A).proven);
    for left in [2, 1, 0] {
        let start = Start { nonce: [left; 16], rtc_s: 1 };
        let choice = LoaderPlan::new(&record, start).choose();
        let Choice::Start { slot: Slot::A, record: next, must_be_durable: true } = choice else {
            panic!("{choice:?}");
        };
        assert_eq!(next.tries, left);
        record = next;
    }
    // The other slot is empty: no machine is given up.
    let choice = LoaderPlan::new(&record, Start { nonce: [9; 16], rtc_s: 1 }).choose();
    let Choice::Start { slot: Slot::A, record, must_be_durable: false } = choice else {
        panic!("{choice:?}");
    };
    assert_eq!((record.trial, record.slot(Slot::A).fault), (None, Fault::Spent));
}
