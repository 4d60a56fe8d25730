//! Writes the seeds of our own targets into `corpus/`: one valid input each, from the encoders.
//!
//! `cargo run --example seeds` in `tests/fuzz`, after a format has grown.

use partition_layout::boot_state::{ImageFacts, Reason, factory};
use partition_layout::boot_variable::{BootVariable, Extent};
use partition_layout::frames::FrameTable;
use partition_layout::gpt::{Entry, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::labels::ImageLabels;
use partition_layout::record::{Cause, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::{Header, Trailer};
use partition_layout::verity::VerityTable;
use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let record = factory([1; 16], ImageFacts { release: 7, secver: 2, digest: [3; 32] }).encode();
    let mut script = vec![0, 1, 1, 7, 8, 9, 0x81, 10, 2, 4, 5, 6, 11, 12, 13, 0x8A];
    script.extend_from_slice(&record);
    keep("record", &record)?;
    keep("boot_state", &script)?;
    keep("slot_header", &Header { trailer_at: 65_536 }.encode())?;
    keep("slot_trailer", &trailer().encode())?;
    keep("boot_variable", &variable().encode())?;
    let frames = FrameTable { head: 60, slot: vec![1, 70_000, 0x00FF_FFFF], tail: 20 };
    keep("frames", frames.encode_slot().as_bytes())?;
    let labels = serde_json::to_vec(&labels().encode()).map_err(std::io::Error::other)?;
    keep("labels", &labels)?;
    let table =
        VerityTable { data_blocks: 60_000, hash_start: 60_001, root: [5; 32], salt: [6; 32] };
    keep("verity_table", table.encode().as_bytes())?;
    keep("gpt", &disk(512))?;
    fs::write(folder("gpt").join("sectors-4096"), disk(4096))
}

fn folder(target: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn keep(target: &str, seed: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder(target))?;
    fs::write(folder(target).join("valid"), seed)
}

fn trailer() -> Trailer {
    Trailer {
        data_size: 40_960,
        hash_size: 8192,
        uki_at: 49_152,
        uki_size: 5000,
        uki_sha256: [1; 32],
        root_hash: [2; 32],
        salt: [3; 32],
        release: 7,
        secver: 2,
        version: "1.0".into(),
        product: "bascule".into(),
        arch: "x86_64".into(),
        watchdogs: 3,
    }
}

fn variable() -> BootVariable {
    BootVariable {
        loader: "0.1.0".into(),
        disk_id: [1; 16],
        nonce: [2; 16],
        booted: Target::Slot(Slot::B),
        slot: Extent { first: 2048, sectors: 4096 },
        sector_size: 512,
        generation: 9,
        record_written: true,
        record: Extent { first: 34, sectors: 100 },
        watchdogs: 1,
        reasons: vec![Reason::LoadFailed(Slot::A, Cause::Refused), Reason::NotWritable],
        buffer: 0x1000,
        damaged: 2,
    }
}

fn labels() -> ImageLabels {
    ImageLabels {
        product: "bascule".into(),
        kind: "os".into(),
        arch: "x86_64".into(),
        release: 7,
        secver: 2,
        min_from: 1,
        requires: vec!["loader>=2".into()],
        version: "1.0".into(),
        slot_size: 65_536,
        slot_sha256: [1; 32],
        root_hash: [2; 32],
    }
}

/// A disk with tables of four entries and one usable sector: the fuzzer copies its inputs often.
fn disk(sector_size: u32) -> Vec<u8> {
    let unit = sector_size as usize;
    // Protective MBR, header, entries, one usable sector, entries, header.
    let mut bytes = vec![0; 6 * unit];
    let entry = Entry {
        kind: guid::RECORD,
        id: Guid([8; 16]),
        first: 3,
        last: 3,
        attributes: 0,
        name: "bascule-record".into(),
    };
    let table = Table {
        disk: Guid([9; 16]),
        sector_size,
        sectors: 6,
        first_usable: 3,
        last_usable: 3,
        capacity: 4,
        entries: vec![(0, entry)],
    };
    bytes[..unit].copy_from_slice(&table.protective_mbr());
    for write in table.writes() {
        let at = usize::try_from(write.at).expect("a small disk");
        bytes[at..at + write.data.len()].copy_from_slice(&write.data);
    }
    let flags = 2 | u8::from(sector_size == 4096);
    [vec![flags], bytes].concat()
}
