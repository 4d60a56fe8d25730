//! A machine that runs release 1 from slot A, confirmed. Slots are files, the record is in memory.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use os_init::boot_facts::{BootFacts, Place, Slots};
use os_init::record::server::{Keeper, serve};
use partition_layout::boot_state::{Event, ImageFacts, factory, step};
use partition_layout::disk::Disk;
use partition_layout::places::{self, encode_identity};
use partition_layout::record::{Content, Record};
use partition_layout::slot::Slot;
use update_manifest::sign::SigningKey;
use updater::engine::install::{Install, Report};
use updater::engine::plan::Order;
use updater::registry::{Reference, Registry};
use updater::site::{ReleaseFacts, Site};

use super::release::version;
use super::stock::trust;
use super::{ARCH, PRODUCT};

/// Size of the record partition.
const RECORD_SIZE: usize = 16 << 20;
/// What is in the other slot at first.
const FILL: u8 = 0xEE;
const DISK_ID: [u8; 16] = [5; 16];

/// The machine.
pub struct Machine {
    /// What the updater knows of it.
    pub site: Site,
    /// The folder that holds its files.
    pub folder: PathBuf,
}

impl Machine {
    /// A machine in `folder` with slots of `slot_size` bytes that trusts `key`.
    pub fn new(folder: &Path, slot_size: u64, key: &SigningKey) -> Machine {
        let folder = folder.join("machine");
        // The folders that are the running system's in `daemon`.
        for part in ["run/update", "share/trust", "state"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        for slot in ["a", "b"] {
            let fill = vec![FILL; usize::try_from(slot_size).unwrap()];
            fs::write(folder.join(slot), fill).unwrap();
        }
        let site = site(&folder, slot_size, key);
        serve_record(&site.record_socket);
        Machine { site, folder }
    }

    /// Carries out `order` for `source`.
    pub async fn install(&self, registry: Registry, source: Reference, order: Order) -> Report {
        Install::new(&self.site, registry, source, Arc::new(|_| {})).run(order).await
    }

    /// The bytes of the slot that does not run.
    pub fn other_slot(&self) -> Vec<u8> {
        fs::read(self.folder.join("b")).unwrap()
    }

    /// The record as it is now.
    pub fn record(&self) -> Record {
        self.site.record().unwrap().get().unwrap()
    }

    /// Whether the next start tries the other slot.
    pub fn is_armed(&self) -> bool {
        let record = self.record();
        record.trial == Some(Slot::B) && record.tries > 0
    }

    /// Whether no byte of the other slot was written and no event reached the record.
    pub fn is_as_at_first(&self) -> bool {
        self.record().generation == 1 && self.other_slot().iter().all(|byte| *byte == FILL)
    }

    /// Whether the other slot is disarmed and nobody would start it.
    pub fn is_half_written(&self) -> bool {
        let record = self.record();
        record.trial.is_none() && record.slot(Slot::B).content == Content::Writing
    }
}

fn site(folder: &Path, slot_size: u64, key: &SigningKey) -> Site {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let place =
        |name: &str| Place { dev: path(name), offset: 0, size: slot_size, part: path(name) };
    Site {
        boot: BootFacts {
            slot: "a".into(),
            trial: false,
            disk: path("disk"),
            disk_id: "05".repeat(16),
            sector_size: 512,
            record: place("record"),
            slots: Slots { a: place("a"), b: place("b") },
            release: 1,
            version: version(1),
            digest: None,
            state: "ok".into(),
            state_reason: None,
            loader_version: "0.1.0".into(),
            record_written: true,
            record_damaged: 0,
            reasons: Vec::new(),
            boot_id: "01".repeat(16),
        },
        running: Slot::A,
        release: ReleaseFacts {
            product: PRODUCT.into(),
            arch: ARCH.into(),
            release: 1,
            secver: 0,
            version: version(1),
            build_time: 0.into(),
        },
        roots: trust(key),
        config: folder.join("run/config.toml"),
        state: folder.join("state"),
        record_socket: folder.join("run/record.sock"),
        control_socket: folder.join("run/control.sock"),
    }
}

/// Answers at `socket` as the record helper does, until the process ends.
fn serve_record(socket: &Path) {
    let mut disk = Memory(vec![0; RECORD_SIZE]);
    let facts = ImageFacts { release: 1, secver: 0, digest: [1; 32] };
    let confirmed = step(&factory(DISK_ID, facts), Slot::A, Event::Confirm).unwrap().record;
    disk.write(0, &encode_identity(DISK_ID, 512)).unwrap();
    let empty = places::load(&mut disk).unwrap();
    let stored = places::store(&mut disk, &empty, &Record { generation: 0, ..confirmed }).unwrap();
    assert_eq!(stored.generation, 1);
    let at = socket.to_owned();
    std::thread::spawn(move || serve(Keeper::new(disk, Slot::A), &at).unwrap());
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the record helper does not answer");
        std::thread::yield_now();
    }
}

/// A disk in memory.
struct Memory(Vec<u8>);

impl Disk for Memory {
    type Error = Infallible;

    fn sector_size(&self) -> u32 {
        512
    }

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        let at = usize::try_from(at).unwrap();
        buf.copy_from_slice(&self.0[at..at + buf.len()]);
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Infallible> {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
