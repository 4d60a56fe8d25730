//! A layer of an image, and another one above it: no panic, and nothing beside the image's root.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use updater::service_image::layer::{Room, unpack};

/// What may be unpacked, in bytes: little, so that a run is short.
const ROOM: u64 = 512 << 10;
/// An entry of a tar.
const BLOCK: usize = 512;

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::temp_dir().join(format!("fuzz-layer-{}", std::process::id())))
}

/// With a right checksum in each header: past it lie the names.
fn summed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let root = folder().join("root");
    // What an earlier run could not remove shows below.
    let _ = fs::remove_dir_all(folder());
    fs::create_dir_all(&root).expect("a folder in the temporary one");
    let bytes = summed(data);
    let (below, above) = bytes.split_at(bytes.len() / 2 / BLOCK * BLOCK);
    let mut room = Room::of(ROOM, 100);
    for layer in [below, above] {
        let _ = unpack(layer, &root, &mut room);
    }
    let beside = fs::read_dir(folder()).expect("the folder").count();
    assert_eq!(beside, 1, "beside the root");
});
