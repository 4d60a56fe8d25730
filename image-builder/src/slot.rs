//! The slot image: file system, verity tree, kernel image and trailer in one file.
//!
//! Nothing is circular, because sizes come first: the UKI is assembled twice with a verity table of
//! the same length, the first time to learn where the trailer will be, which the header inside the
//! hashed data names.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use partition_layout::slot_image::{Header, TRAILER_SIZE, Trailer, align};
use partition_layout::verity::{TreeBuilder, VerityTable, superblock, tree_size};
use sha2::{Digest, Sha256};

use crate::pe;

/// The verity table is the first file of the initrd's first archive: it lies in so many bytes.
const INITRD_HEAD: usize = 4096;

/// Facts of the release that the trailer repeats.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Release number.
    pub release: u64,
    /// Security version.
    pub secver: u32,
    /// Version for people.
    pub version: String,
    /// Which OS.
    pub product: String,
    /// Architecture.
    pub arch: String,
    /// Watchdogs that the slot's kernel drives.
    pub watchdogs: u32,
}

/// Turns the file at `path`, an erofs of `data_size` bytes, into a slot image. `make_uki` gives the
/// kernel image for a verity table; its size must not depend on what the table says.
///
/// # Errors
/// The file cannot be read or written, or `make_uki` fails or changes its size.
pub fn finish(
    path: &Path,
    data_size: u64,
    facts: &Facts,
    mut make_uki: impl FnMut(&VerityTable) -> Result<Vec<u8>>,
) -> Result<Trailer> {
    let salt = salt(facts);
    let data_blocks = data_size / 4096;
    let hash_size = 4096 + tree_size(data_blocks);
    let mut table = VerityTable { data_blocks, hash_start: data_blocks + 1, root: [0; 32], salt };
    let uki_at = data_size + hash_size;
    let uki_size = make_uki(&table)?.len() as u64;
    let trailer_at = align(uki_at + uki_size).context("the slot image is too large")?;

    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut free = [0; 1024];
    file.read_exact_at(&mut free, 0).context("read the start of the erofs")?;
    ensure!(free == [0; 1024], "the first 1024 bytes of the erofs are in use");
    let write = |at: u64, bytes: &[u8]| {
        file.write_all_at(bytes, at).with_context(|| format!("write {}", path.display()))
    };
    write(0, &Header { trailer_at }.encode())?;

    let tree = hash(&file, data_size, salt)?;
    ensure!(tree.bytes.len() as u64 + 4096 == hash_size, "the verity tree has an unforeseen size");
    write(data_size, &superblock(uuid(facts), data_blocks, &salt))?;
    write(data_size + 4096, &tree.bytes)?;
    table.root = tree.root;
    let uki = make_uki(&table)?;
    ensure!(uki.len() as u64 == uki_size, "the kernel image's size depends on the verity table");
    write(uki_at, &uki)?;
    let trailer = Trailer {
        data_size,
        hash_size,
        uki_at,
        uki_size,
        uki_sha256: Sha256::digest(&uki).into(),
        root_hash: tree.root,
        salt,
        release: facts.release,
        secver: facts.secver,
        version: facts.version.clone(),
        product: facts.product.clone(),
        arch: facts.arch.clone(),
        watchdogs: facts.watchdogs,
    };
    ensure!(trailer.fits(trailer_at), "the trailer would lie inside the kernel image");
    write(trailer_at, &trailer.encode())?;
    Ok(trailer)
}

fn hash(file: &File, data_size: u64, salt: [u8; 32]) -> Result<partition_layout::verity::Tree> {
    let mut builder = TreeBuilder::new(salt);
    each_block(file, data_size, |data| builder.update(data))?;
    Ok(builder.finish())
}

/// Hands out the first `size` bytes of `file`, a piece at a time.
fn each_block(mut file: &File, size: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut block = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0)).context("go to the start of the slot")?;
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left.min(block.len() as u64)).context("block size")?;
        let data = block.get_mut(..length).context("block size")?;
        file.read_exact(data).context("read the slot back")?;
        take(data);
        left -= length as u64;
    }
    Ok(())
}

/// Same release, same salt: builds repeat. Its task is only that no two releases share a tree.
fn salt(facts: &Facts) -> [u8; 32] {
    let text = format!("bascule salt {} {} {}", facts.product, facts.arch, facts.release);
    Sha256::digest(text).into()
}

/// UUID of the release's verity device, in the form of a random (version 4) one.
#[must_use]
pub fn uuid(facts: &Facts) -> [u8; 16] {
    let text = format!("bascule verity {} {} {}", facts.product, facts.arch, facts.release);
    let hash = Sha256::digest(text);
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

/// A UUID as text.
#[must_use]
pub fn uuid_text(uuid: [u8; 16]) -> String {
    let hex = partition_layout::verity::hex(&uuid);
    let mut text = String::new();
    for (at, letter) in hex.chars().enumerate() {
        if [8, 12, 16, 20].contains(&at) {
            text.push('-');
        }
        text.push(letter);
    }
    text
}

/// A slot image that was found to be whole.
#[derive(Debug, Clone)]
pub struct Whole {
    /// Size in bytes; the file or partition may be longer.
    pub size: u64,
    /// SHA-256 of these bytes.
    pub sha256: [u8; 32],
    /// Header.
    pub header: Header,
    /// Trailer.
    pub trailer: Trailer,
    /// Kernel image.
    pub uki: Vec<u8>,
}

/// Reads the slot image in the file or partition at `path` and checks every byte of it against
/// its trailer, and the trailer against the verity table inside the kernel image.
///
/// # Errors
/// It is no slot image, or not what it says of itself; tells which part.
pub fn check(path: &Path) -> Result<Whole> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let says = || format!("slot image {}", path.display());
    check_file(&file).with_context(says)
}

fn check_file(file: &File) -> Result<Whole> {
    let read = |what: &str, at: u64, size: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(size)?];
        file.read_exact_at(&mut bytes, at).with_context(|| format!("read the {what}"))?;
        Ok(bytes)
    };
    let length = (&mut &*file).seek(SeekFrom::End(0)).context("look at its size")?;
    let header = read("header", 0, length.min(512))?;
    let header = Header::decode(&header).map_err(|why| anyhow::anyhow!("header: {why:?}"))?;
    let size = header.trailer_at.checked_add(TRAILER_SIZE as u64);
    let size = size.filter(|size| *size <= length).context("it ends before its trailer")?;
    let trailer = read("trailer", header.trailer_at, TRAILER_SIZE as u64)?;
    let trailer = Trailer::decode(&trailer).map_err(|why| anyhow::anyhow!("trailer: {why:?}"))?;
    ensure!(trailer.fits(header.trailer_at), "the trailer lies inside the kernel image");

    let uki = read("kernel image", trailer.uki_at, trailer.uki_size)?;
    ensure!(
        Sha256::digest(&uki)[..] == trailer.uki_sha256,
        "the kernel image is not the one that the trailer names"
    );
    let blocks = trailer.data_size / 4096;
    let tree = hash(file, trailer.data_size, trailer.salt)?;
    ensure!(tree.root == trailer.root_hash, "the file system is not the one that was hashed");
    let stored = read("verity tree", trailer.data_size, trailer.hash_size)?;
    // The superblock's UUID is nobody's promise.
    let uuid = stored.get(16..32).and_then(|uuid| uuid.try_into().ok()).unwrap_or_default();
    let mut wanted = superblock(uuid, blocks, &trailer.salt);
    wanted.extend(tree.bytes);
    ensure!(stored == wanted, "the verity tree is not that of the file system");
    let table = VerityTable {
        data_blocks: blocks,
        hash_start: blocks + 1,
        root: trailer.root_hash,
        salt: trailer.salt,
    };
    let table = table.encode();
    let initrd = pe::section(&uki, ".initrd").context("kernel image")?;
    let head = initrd.get(..initrd.len().min(INITRD_HEAD)).unwrap_or_default();
    ensure!(
        head.windows(table.len()).any(|bytes| bytes == table.as_bytes()),
        "the kernel image is for another file system"
    );
    Ok(Whole { size, sha256: hash_of(file, size)?, header, trailer, uki })
}

/// SHA-256 of the first `size` bytes of `file`.
fn hash_of(file: &File, size: u64) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    each_block(file, size, |data| hasher.update(data))?;
    Ok(hasher.finalize().into())
}
