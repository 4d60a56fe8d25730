//! A fresh disk, looked at by stock tools and by our own readers, for both sector sizes.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use image_builder::disk::{Format, Recipe, make};
use partition_layout::boot_state::{Choice, LoaderPlan, Start};
use partition_layout::disk::{Disk, Region};
use partition_layout::gpt;
use partition_layout::guid;
use partition_layout::places;
use partition_layout::slot::Slot;
use partition_layout::slot_image::Trailer;

const SIZE: u64 = 6 << 30;

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

fn check(sector_size: u32) {
    let folder = std::env::temp_dir().join(format!("disk-{sector_size}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let recipe = Recipe {
        release: release(&folder),
        manifest_digest: [6; 32],
        config: Some(folder.join("config.toml")),
        size: SIZE,
        sector_size,
    };
    let (one, two) = (folder.join("one.raw"), folder.join("two.raw"));
    make(&recipe, Format::Raw, &one).unwrap();
    make(&recipe, Format::Raw, &two).unwrap();
    said(Command::new("cmp").args([&one, &two]));
    if sector_size == 512 {
        let text = said(Command::new("sgdisk").arg("-v").arg(&one));
        assert!(text.contains("No problems found"), "{text}");
    }

    let mut disk = ReadOnly { file: File::open(&one).unwrap(), sector_size };
    let (table, copy) = gpt::read(&mut disk).unwrap();
    assert_eq!(copy, gpt::Copy::Primary);
    let extent = |kind| {
        let entry = table.find(kind).unwrap();
        (entry.first * u64::from(sector_size), entry.sectors() * u64::from(sector_size))
    };
    let (at, size) = extent(guid::RECORD);
    let loaded = places::load(&mut Region::new(&mut disk, at, size).unwrap()).unwrap();
    let (_, record) = loaded.newest.unwrap();
    let mut plan = LoaderPlan::new(&record, Start { nonce: [1; 16], rtc_s: 1 });
    assert!(matches!(plan.choose(), Choice::Start { slot: Slot::A, .. }), "{record:?}");
    assert_eq!(record.slot(Slot::A).release, 7);

    let (at, size) = extent(guid::ESP);
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    disk.read(at, &mut bytes).unwrap();
    let esp = folder.join("esp.img");
    fs::write(&esp, bytes).unwrap();
    let text = said(Command::new("fsck.fat").args(["-n", "-v"]).arg(&esp));
    let clusters: u64 = text
        .lines()
        .find_map(|line| line.rsplit_once('/')?.1.strip_suffix(" clusters")?.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    assert!(clusters >= 65_525, "FAT32 in name only: {clusters} clusters");
    let listed = said(Command::new("mdir").arg("-/").arg("-b").arg("-i").arg(&esp));
    for name in ["BOOTX64.EFI", "recovery.efi", "config.toml"] {
        assert!(listed.contains(name), "{name} is not on the ESP: {listed}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_disk_with_small_sectors() {
    check(512);
}

#[test]
fn a_disk_with_large_sectors() {
    check(4096);
}
