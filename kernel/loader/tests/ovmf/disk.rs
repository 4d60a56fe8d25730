//! A Bascule disk for a test: table, ESP with the loader, record, slots with kernel images.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use partition_layout::boot_state::ImageFacts;
use partition_layout::disk::{Disk, Region};
use partition_layout::gpt::Table;
use partition_layout::guid::{self, Guid};
use partition_layout::layout::MIB;
use partition_layout::places;
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use partition_layout::slot_image::{BLOCK, Header, Trailer, align};
use sha2::{Digest, Sha256};

use crate::uki::{given, run, sign};

pub const DISK_ID: [u8; 16] = *b"disk of the test";
/// Smallest that FAT32 fits in with sectors of 4096 bytes; the sizes on real disks are larger.
const ESP_BYTES: u64 = 288 * MIB;
const RECORD_BYTES: u64 = 16 * MIB;
const SLOT_BYTES: u64 = 320 * MIB;
const DISK_BYTES: u64 = 1024 * MIB;
/// What the image builder puts on an ESP for firmware that ends up in its shell.
const STARTUP: &[u8] = include_bytes!("../../../startup.nsh");
/// Where the kernel image is in a slot: behind an empty root and an empty tree.
const UKI_AT: u64 = 2 * BLOCK;

/// A disk image file.
pub struct Image {
    pub path: PathBuf,
    sector: u32,
    file: File,
}

impl Disk for Image {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        self.sector
    }

    fn size(&self) -> u64 {
        DISK_BYTES
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What goes on a disk.
pub struct Contents<'a> {
    pub sector: u32,
    /// Kernel images of slot A and B.
    pub slots: [Option<&'a [u8]>; 2],
    pub recovery: Option<&'a [u8]>,
    /// Changes the record of a fresh disk; `None` leaves every place empty.
    pub record: Option<&'a dyn Fn(&mut Record)>,
    pub signed_loader: bool,
    /// The watchdogs that the trailers say the kernels drive.
    pub watchdogs: u32,
    /// Starts first, instead of the loader, which is then `EFI/test/loader.efi`.
    pub before_loader: Option<&'a [u8]>,
    /// More files on the ESP, by their path.
    pub beside: &'a [(&'a str, &'a [u8])],
}

impl Default for Contents<'_> {
    fn default() -> Self {
        Self {
            sector: 512,
            slots: [None; 2],
            recovery: None,
            record: Some(&|_| {}),
            signed_loader: false,
            watchdogs: 0,
            before_loader: None,
            beside: &[],
        }
    }
}

impl Contents<'_> {
    /// Makes the disk in `folder`.
    pub fn write(&self, folder: &Path) -> Image {
        let path = folder.join("disk.img");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.expect("create the disk");
        file.set_len(DISK_BYTES).expect("size the disk");
        let mut image = Image { path, sector: self.sector, file };
        let table = Table::new(id(0), self.sector, DISK_BYTES)
            .and_then(|it| it.append(guid::ESP, id(1), "esp", Some(ESP_BYTES)))
            .and_then(|it| it.append(guid::RECORD, id(2), "record", Some(RECORD_BYTES)))
            .and_then(|it| it.append(guid::SLOT_A, id(3), "slot-a", Some(SLOT_BYTES)))
            .and_then(|it| it.append(guid::SLOT_B, id(4), "slot-b", Some(SLOT_BYTES)))
            .expect("the partitions fit");
        image.write(0, &table.protective_mbr()).expect("write the protective MBR");
        table.store(&mut image).expect("write the table");
        self.write_esp(&image, folder);
        image.write_slots(self);
        image.write_record(self);
        image
    }

    fn write_esp(&self, image: &Image, folder: &Path) {
        let esp = folder.join("esp.img");
        File::create(&esp).and_then(|file| file.set_len(ESP_BYTES)).expect("create the ESP");
        run(Command::new("mkfs.fat")
            .args(["-F", "32", "-S"])
            .arg(self.sector.to_string())
            .arg(&esp));
        let loader = folder.join("loader.efi");
        fs::copy(given("BASCULE_LOADER"), &loader).expect("copy the loader");
        let loader = if self.signed_loader { sign(&loader) } else { loader };
        let loader = fs::read(loader).expect("read the loader");
        let mut files = match self.before_loader {
            None => vec![("EFI/BOOT/BOOTX64.EFI", loader.as_slice())],
            Some(first) => {
                vec![("EFI/BOOT/BOOTX64.EFI", first), ("EFI/test/loader.efi", loader.as_slice())]
            }
        };
        files.push(("startup.nsh", STARTUP));
        files.extend(self.recovery.map(|bytes| ("EFI/bascule/recovery.efi", bytes)));
        files.extend(self.beside);
        for (name, bytes) in files {
            put_file(&esp, folder, name, bytes);
        }
        let bytes = fs::read(&esp).expect("read the ESP");
        let start = image.start(guid::ESP);
        write_sparse(&image.file, start, &bytes);
        fs::remove_file(esp).expect("remove the ESP's own file");
    }
}

/// Writes what is not zero; the file is new, and zero where nothing was written.
fn write_sparse(file: &File, at: u64, bytes: &[u8]) {
    for (index, piece) in bytes.chunks(MIB as usize).enumerate() {
        if piece.iter().any(|&byte| byte != 0) {
            file.write_all_at(piece, at + index as u64 * MIB).expect("write to the disk");
        }
    }
}

fn put_file(esp: &Path, folder: &Path, name: &str, bytes: &[u8]) {
    let own = folder.join("file");
    fs::write(&own, bytes).expect("write a file of the ESP");
    let mut parent = String::from("::");
    let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders);
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        parent.push('/');
        parent.push_str(part);
        let mut mmd = Command::new("mmd");
        // It may be there.
        let _ = mmd.arg("-i").arg(esp).arg("-D").arg("s").arg(&parent).output();
    }
    run(Command::new("mcopy").arg("-i").arg(esp).arg(&own).arg(format!("::/{name}")));
}

fn id(number: u8) -> Guid {
    Guid([number + 1; 16])
}

/// What a trailer of the test says.
pub fn facts(slot: Slot) -> ImageFacts {
    ImageFacts { release: 10 + slot.index() as u64, secver: 1, digest: [0; 32] }
}

impl Image {
    fn table(&self) -> Table {
        let mut own = Self {
            path: self.path.clone(),
            sector: self.sector,
            file: self.file.try_clone().expect("open the disk twice"),
        };
        partition_layout::gpt::read(&mut own).expect("read our own table").0
    }

    /// Where a partition begins, in bytes.
    pub fn start(&self, kind: Guid) -> u64 {
        self.table().find(kind).expect("a partition of ours").first * u64::from(self.sector)
    }

    /// The ESP as mtools name it.
    pub fn esp_for_mtools(&self) -> String {
        format!("{}@@{}", self.path.display(), self.start(guid::ESP))
    }

    /// Hash of the whole ESP.
    pub fn esp_sha256(&self) -> [u8; 32] {
        let mut esp = vec![0; usize::try_from(ESP_BYTES).expect("a small partition")];
        self.file.read_exact_at(&mut esp, self.start(guid::ESP)).expect("read the ESP");
        Sha256::digest(&esp).into()
    }

    fn write_slots(&mut self, contents: &Contents) {
        for (slot, kernel) in Slot::ALL.into_iter().zip(contents.slots) {
            let Some(kernel) = kernel else { continue };
            let size = kernel.len() as u64;
            let trailer_at = align(UKI_AT + size).expect("a small image");
            let trailer = Trailer {
                data_size: BLOCK,
                hash_size: BLOCK,
                uki_at: UKI_AT,
                uki_size: size,
                uki_sha256: Sha256::digest(kernel).into(),
                root_hash: [0; 32],
                salt: [0; 32],
                release: facts(slot).release,
                secver: facts(slot).secver,
                version: format!("1.{}", slot.word()),
                product: "test".to_owned(),
                arch: "x86-64".to_owned(),
                watchdogs: contents.watchdogs,
            };
            let at = self.start(kind(slot));
            self.write(at, &Header { trailer_at }.encode()).expect("write a header");
            write_sparse(&self.file, at + UKI_AT, kernel);
            self.write(at + trailer_at, &trailer.encode()).expect("write a trailer");
        }
    }

    fn write_record(&mut self, contents: &Contents) {
        let identity = places::encode_identity(DISK_ID, self.sector);
        let at = self.start(guid::RECORD);
        self.write(at, &identity).expect("write the identity block");
        let Some(change) = contents.record else {
            return;
        };
        let mut record = Record::fresh(DISK_ID);
        for (slot, kernel) in Slot::ALL.into_iter().zip(contents.slots) {
            if kernel.is_some() {
                *record.slot_mut(slot) = partition_layout::boot_state::sealed(facts(slot));
                record.slot_mut(slot).proven = true;
            }
        }
        change(&mut record);
        let mut places = self.record_partition();
        let loaded = places::load(&mut places).expect("our own identity block");
        places::store(&mut places, &loaded, &record).expect("write the record");
    }

    fn record_partition(&mut self) -> Region<&mut Self> {
        let start = self.start(guid::RECORD);
        Region::new(self, start, RECORD_BYTES).expect("the record partition lies on the disk")
    }

    /// The record as it is on the disk.
    pub fn record(&mut self) -> Record {
        let loaded = places::load(&mut self.record_partition()).expect("read the record");
        loaded.newest.expect("a valid record").1
    }

    /// Damages every place of the record.
    pub fn damage_record(&mut self) {
        let start = self.start(guid::RECORD);
        for place in 1..=places::PLACES as u64 {
            self.file
                .write_all_at(&[0xff; 64], start + place * places::STRIDE + 100)
                .expect("damage");
        }
    }

    /// Alters one byte in the middle of a slot's kernel image.
    pub fn alter_kernel(&mut self, slot: Slot) {
        let at = self.start(kind(slot)) + UKI_AT + 50_000;
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, at).expect("read a byte");
        self.file.write_all_at(&[byte[0] ^ 1], at).expect("alter a byte");
    }
}

/// The partition type of a slot.
pub fn kind(slot: Slot) -> Guid {
    match slot {
        Slot::A => guid::SLOT_A,
        Slot::B => guid::SLOT_B,
    }
}
