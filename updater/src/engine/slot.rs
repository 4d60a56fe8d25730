//! Writing an image into a slot, and reading a slot to see what is in it.
//!
//! | step | power cut here leaves |
//! |---|---|
//! | trailer zeroed, flush | a slot that nobody starts |
//! | frames, flush now and then | the same; the frames on the medium are found again |
//! | whole slot read back | the same |
//! | trailer, flush, read back | a whole image that the record does not know yet |
//!
//! Memory: one frame compressed, one plain, the leaves of the verity tree.

use std::io;
use std::path::Path;

use bytes::Bytes;
use kernel_abi::FileDisk;
use partition_layout::disk::Disk;
use partition_layout::frames::{FRAME_SIZE, FrameTable};
use partition_layout::slot_image::{BLOCK, HEADER_SIZE, Header, TRAILER_SIZE, Trailer};
use partition_layout::verity::TreeBuilder;
use sha2::{Digest as _, Sha256};
use update_manifest::release::Release;

use super::checkpoint::Checkpoint;
use crate::failure::{Class, Failure};

/// Frames between two flushes of the slot: what a cut may cost.
const FLUSH_FRAMES: usize = 8;
/// The longest compressed frame: what zstd makes of a megabyte of noise, and some.
const COMPRESSED_MAX: usize = (FRAME_SIZE as usize) + (64 << 10);
/// Bytes in a frame, as a length of memory.
const FRAME: usize = FRAME_SIZE as usize;

/// The image of one release on its way into one slot.
pub struct SlotWriter<D> {
    disk: D,
    shown: String,
    frames: FrameTable,
    slot_size: u64,
    checkpoint: Checkpoint,
    /// Hash over the plain bytes of all frames done.
    whole: Sha256,
    done: usize,
    unflushed: Vec<[u8; 32]>,
    compressed: Vec<u8>,
    plain: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// The last block, held back.
    trailer: Vec<u8>,
}

/// What came out of writing frames.
#[derive(Debug)]
pub enum Written {
    /// The source ended before the image did.
    Partly,
    /// All frames are written and flushed, but for the trailer.
    All,
    /// A frame is not what its place in the table says.
    BadFrame(String),
}

impl<D: Disk<Error = io::Error>> SlotWriter<D> {
    /// Begins to write `release` into the slot `disk`, which is called `shown`. Writes nothing.
    ///
    /// # Errors
    /// A refusal when the slot is too small, or a fault of the system.
    pub fn new(
        disk: D,
        shown: String,
        release: &Release,
        checkpoint: Checkpoint,
    ) -> Result<Self, Failure> {
        if disk.size() < release.labels.slot_size {
            return Err(Failure::refused("too-large", format!("{shown}: smaller than the image")));
        }
        let mut decompressor =
            zstd::bulk::Decompressor::new().map_err(|error| system("zstd", &error))?;
        // A frame needs no window beyond itself; a larger one would take memory on its word.
        decompressor
            .set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(20))
            .map_err(|error| system("zstd", &error))?;
        Ok(SlotWriter {
            disk,
            shown,
            frames: release.frames.clone(),
            slot_size: release.labels.slot_size,
            checkpoint,
            whole: Sha256::new(),
            done: 0,
            unflushed: Vec::new(),
            compressed: Vec::new(),
            plain: Vec::with_capacity(FRAME),
            decompressor,
            trailer: Vec::new(),
        })
    }

    /// Zeroes the trailer of what is in the slot, and the place of the new one; flushed.
    ///
    /// # Errors
    /// A disk fault.
    pub fn clear_trailer(&mut self) -> Result<(), Failure> {
        let mut head = vec![0; block_of(HEADER_SIZE, &self.disk)];
        self.read(0, &mut head)?;
        let old = Header::decode(&head).ok().map(|header| header.trailer_at);
        let new = self.slot_size - BLOCK;
        let last = self.disk.size().saturating_sub(BLOCK);
        for at in [old, Some(new)].into_iter().flatten().filter(|at| *at <= last) {
            self.write(at, &[0; TRAILER_SIZE])?;
            // The place of the new one may lie inside the old image: not before its trailer is gone.
            self.flush()?;
        }
        Ok(())
    }

    /// Reads back what an earlier run wrote and takes up behind it. Returns the bytes found again.
    ///
    /// # Errors
    /// A disk fault.
    pub fn take_up(&mut self) -> Result<u64, Failure> {
        let mut noted = self.checkpoint.frames();
        // The last frame holds the trailer, which is never on the medium before the end.
        noted.truncate(self.frames.slot.len().saturating_sub(1));
        let mut buffer = vec![0; FRAME];
        for (index, hash) in noted.iter().enumerate() {
            self.read(index as u64 * FRAME_SIZE, &mut buffer)?;
            let mut whole = self.whole.clone();
            whole.update(&buffer);
            if so_far(&whole) != *hash {
                break;
            }
            self.whole = whole;
            self.done = index + 1;
        }
        noted.truncate(self.done);
        // The slot is what counts: a full state partition only costs the resume, and the update may
        // be what heals it. Frames that are noted in vain are compared before they are used.
        let _ = self.checkpoint.begin(&noted);
        Ok(self.done as u64 * FRAME_SIZE)
    }

    /// The byte of the layer at which the next frame begins, and the one behind the last frame.
    #[must_use]
    pub fn wanted(&self) -> Option<(u64, u64)> {
        let from = self.frames.offset(self.done)?;
        let until = self.frames.offset(self.frames.slot.len())?;
        Some((from, until))
    }

    /// Frames written.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Bytes of the slot written.
    #[must_use]
    pub fn done_bytes(&self) -> u64 {
        (self.done as u64 * FRAME_SIZE).min(self.slot_size)
    }

    /// Writes what `source` gives, which must begin at [`SlotWriter::wanted`]. `told` hears the
    /// bytes of the slot done so far.
    ///
    /// # Errors
    /// A disk fault; what was written before stays.
    pub fn consume(
        &mut self,
        mut source: impl FnMut() -> Option<Bytes>,
        mut told: impl FnMut(u64),
    ) -> Result<Written, Failure> {
        self.compressed.clear();
        while let Some(piece) = source() {
            let mut piece = piece.as_ref();
            while !piece.is_empty() {
                let Some(size) = self.frames.slot.get(self.done).map(|size| *size as usize) else {
                    return self.finish_frames();
                };
                if size > COMPRESSED_MAX {
                    return Ok(Written::BadFrame(format!("frame {} is too large", self.done)));
                }
                let take = size.saturating_sub(self.compressed.len()).min(piece.len());
                let (head, rest) = piece.split_at(take);
                self.compressed.extend_from_slice(head);
                piece = rest;
                if self.compressed.len() == size {
                    if let Err(why) = self.unpack() {
                        self.compressed.clear();
                        return Ok(Written::BadFrame(why));
                    }
                    self.store_frame()?;
                    told(self.done_bytes());
                }
            }
        }
        if self.done == self.frames.slot.len() {
            return self.finish_frames();
        }
        self.flush_frames()?;
        Ok(Written::Partly)
    }

    fn finish_frames(&mut self) -> Result<Written, Failure> {
        self.flush_frames()?;
        Ok(Written::All)
    }

    fn unpack(&mut self) -> Result<(), String> {
        let at = self.done as u64 * FRAME_SIZE;
        let expected = FRAME_SIZE.min(self.slot_size.saturating_sub(at));
        self.plain.clear();
        let length = self
            .decompressor
            .decompress_to_buffer(&self.compressed, &mut self.plain)
            .map_err(|error| format!("frame {}: {error}", self.done))?;
        if length as u64 != expected {
            return Err(format!("frame {} has {length} bytes, not {expected}", self.done));
        }
        Ok(())
    }

    fn store_frame(&mut self) -> Result<(), Failure> {
        let at = self.done as u64 * FRAME_SIZE;
        let is_last = self.done + 1 == self.frames.slot.len();
        let plain = std::mem::take(&mut self.plain);
        let keep = if is_last { plain.len().saturating_sub(TRAILER_SIZE) } else { plain.len() };
        let (body, trailer) = plain.split_at(keep);
        if is_last {
            self.trailer = trailer.to_vec();
        }
        if !body.is_empty() {
            self.write(at, body)?;
        }
        self.whole.update(&plain);
        self.unflushed.push(so_far(&self.whole));
        self.done += 1;
        self.plain = plain;
        self.compressed.clear();
        if self.unflushed.len() >= FLUSH_FRAMES {
            self.flush_frames()?;
        }
        Ok(())
    }

    fn flush_frames(&mut self) -> Result<(), Failure> {
        self.flush()?;
        // The slot is what counts; a full state partition only costs the resume.
        let _ = self.checkpoint.add(&self.unflushed);
        self.unflushed.clear();
        Ok(())
    }

    /// Whether the bytes that came in are the signed ones.
    ///
    /// # Errors
    /// Corrupt: the download's fault, before anything was read back.
    pub fn check_received(&self, release: &Release) -> Result<(), Failure> {
        if so_far(&self.whole) == release.labels.slot_sha256 {
            return Ok(());
        }
        // Frames that unpack well but are not the signed ones, as a mirror may have served: they
        // would be found again on the disk and taken up for ever.
        self.checkpoint.clear();
        Err(Failure::new(
            Class::Corrupt,
            "slot",
            "the image received is not the one that was signed; the slot stays disarmed, and the \
             next apply begins anew",
        ))
    }

    /// Reads the whole slot back past the page cache and compares it with what was signed; the
    /// trailer, held back until now, stands in for its block.
    ///
    /// # Errors
    /// A disk fault when the medium gives other bytes than were written; corrupt when the parts of
    /// the signed image contradict each other.
    pub fn read_back(&mut self, release: &Release, told: impl FnMut(u64)) -> Result<(), Failure> {
        let trailer = self.trailer.clone();
        let inspected = inspect(&mut self.disk, self.slot_size, Some(&trailer), told)
            .map_err(|error| disk_fault("read back", &self.shown, error))?;
        if inspected.sha256 != release.labels.slot_sha256 {
            return Err(Failure::new(
                Class::Disk,
                "read-back",
                format!(
                    "{}: the disk gives back other bytes than were written; the release is not \
                     blamed, look at the disk",
                    self.shown
                ),
            ));
        }
        inspected.agrees(release).map_err(|why| {
            Failure::new(Class::Corrupt, "slot", format!("the signed image is inconsistent: {why}"))
        })
    }

    /// Writes the trailer, flushes, and reads it back: the slot is whole.
    ///
    /// # Errors
    /// A disk fault.
    pub fn write_trailer(&mut self) -> Result<(), Failure> {
        let at = self.slot_size - BLOCK;
        let trailer = std::mem::take(&mut self.trailer);
        self.write(at, &trailer)?;
        self.flush()?;
        let mut found = vec![0; TRAILER_SIZE];
        self.read(at, &mut found)?;
        if found != trailer {
            let error = io::Error::other("other bytes than were written");
            return Err(disk_fault("read back the trailer of", &self.shown, error));
        }
        self.checkpoint.clear();
        Ok(())
    }

    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        self.disk.read(at, buffer).map_err(|error| disk_fault("read", &self.shown, error))
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Failure> {
        self.disk.write(at, data).map_err(|error| disk_fault("write", &self.shown, error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.disk.flush().map_err(|error| disk_fault("flush", &self.shown, error))
    }
}

/// What a slot holds, as read from the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Hash over the whole image.
    pub sha256: [u8; 32],
    /// What the trailer says; `None` when it is no trailer.
    pub trailer: Option<Trailer>,
    /// Root of the verity tree, computed from the data.
    pub root: [u8; 32],
    /// Whether the tree on the medium is the computed one.
    pub tree_is_whole: bool,
    /// Hash of the UKI.
    pub uki_sha256: [u8; 32],
    /// Whether the header at the slot's start leads to the trailer.
    pub header_fits: bool,
}

impl Inspected {
    /// Whether all parts agree with each other.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn is_whole(&self) -> Result<&Trailer, &'static str> {
        let trailer = self.trailer.as_ref().ok_or("no valid trailer")?;
        if !self.header_fits {
            return Err("the header does not lead to the trailer");
        }
        if self.root != trailer.root_hash {
            return Err("the root hash differs from the trailer's");
        }
        if !self.tree_is_whole {
            return Err("the hash tree differs from the data");
        }
        if self.uki_sha256 != trailer.uki_sha256 {
            return Err("the kernel image differs from the trailer's hash");
        }
        Ok(trailer)
    }

    /// Whether all parts agree with each other and with the signed labels.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn agrees(&self, release: &Release) -> Result<(), &'static str> {
        let trailer = self.is_whole()?;
        let labels = &release.labels;
        if trailer.root_hash != labels.root_hash {
            return Err("the root hash differs from the label's");
        }
        let same = trailer.release == labels.release
            && trailer.secver == labels.secver
            && trailer.product == labels.product
            && trailer.arch == labels.arch;
        if same { Ok(()) } else { Err("trailer and labels name different releases") }
    }
}

/// Opens the slot at `device` read-only and inspects it from its own header and trailer.
///
/// # Errors
/// A disk fault, or a refusal when there is no image in it.
pub fn inspect_slot(device: &Path, told: impl FnMut(u64)) -> Result<Inspected, Failure> {
    let shown = device.display().to_string();
    let disk = FileDisk::open(device, false).map_err(|error| disk_fault("open", &shown, error))?;
    inspect_disk(disk, &shown, told)
}

/// Inspects the slot `disk`, which is called `shown`, from its own header and trailer.
///
/// # Errors
/// A disk fault, or a refusal when there is no image in it.
pub fn inspect_disk<D: Disk<Error = io::Error>>(
    mut disk: D,
    shown: &str,
    told: impl FnMut(u64),
) -> Result<Inspected, Failure> {
    let fault = |what: &str, error| disk_fault(what, shown, error);
    let mut head = vec![0; block_of(HEADER_SIZE, &disk)];
    disk.read(0, &mut head).map_err(|error| fault("read", error))?;
    let end = Header::decode(&head).ok().and_then(|header| header.trailer_at.checked_add(BLOCK));
    let Some(size) = end.filter(|end| *end <= disk.size()) else {
        return Err(Failure::refused("empty", format!("{shown}: no image in this slot")));
    };
    inspect(&mut disk, size, None, told).map_err(|error| fault("read", error))
}

/// Reads the image of `size` bytes; `held_back` stands in for its last block.
fn inspect<D: Disk<Error = io::Error>>(
    disk: &mut D,
    size: u64,
    held_back: Option<&[u8]>,
    mut told: impl FnMut(u64),
) -> io::Result<Inspected> {
    let trailer_at = size.saturating_sub(BLOCK);
    let block = match held_back {
        Some(block) => block.to_vec(),
        None => {
            let mut block = vec![0; TRAILER_SIZE];
            disk.read(trailer_at, &mut block)?;
            block
        }
    };
    let trailer = Trailer::decode(&block).ok().filter(|trailer| trailer.fits(trailer_at));
    let mut whole = Sha256::new();
    let mut parts = trailer.as_ref().map(Parts::new);
    let mut buffer = vec![0; FRAME];
    let mut header_fits = false;
    let mut at = 0;
    while at < trailer_at {
        let length = usize::try_from(FRAME_SIZE.min(trailer_at - at)).unwrap_or(FRAME);
        let Some(piece) = buffer.get_mut(..length) else { break };
        disk.read(at, piece)?;
        whole.update(&*piece);
        if at == 0 {
            header_fits = Header::decode(piece).is_ok_and(|head| head.trailer_at == trailer_at);
        }
        if let Some(parts) = &mut parts {
            parts.update(at, piece);
        }
        at += length as u64;
        told(at);
    }
    whole.update(&block);
    let (root, tree_is_whole, uki_sha256) = parts.map_or(([0; 32], false, [0; 32]), Parts::finish);
    Ok(Inspected {
        sha256: whole.finalize().into(),
        trailer,
        root,
        tree_is_whole,
        uki_sha256,
        header_fits,
    })
}

/// The parts of an image, hashed while it is read from front to back.
struct Parts {
    data_end: u64,
    tree_at: u64,
    tree_end: u64,
    uki_at: u64,
    uki_end: u64,
    tree: Option<TreeBuilder>,
    root: [u8; 32],
    expected: Vec<u8>,
    tree_is_whole: bool,
    tree_seen: u64,
    uki: Sha256,
}

impl Parts {
    fn new(trailer: &Trailer) -> Parts {
        Parts {
            data_end: trailer.data_size,
            tree_at: trailer.data_size.saturating_add(BLOCK),
            tree_end: trailer.data_size.saturating_add(trailer.hash_size),
            uki_at: trailer.uki_at,
            uki_end: trailer.uki_at.saturating_add(trailer.uki_size),
            tree: Some(TreeBuilder::new(trailer.salt)),
            root: [0; 32],
            expected: Vec::new(),
            tree_is_whole: true,
            tree_seen: 0,
            uki: Sha256::new(),
        }
    }

    fn update(&mut self, at: u64, piece: &[u8]) {
        if let (Some(tree), Some(data)) = (&mut self.tree, overlap(at, piece, 0, self.data_end)) {
            tree.update(data);
        }
        if at + piece.len() as u64 >= self.data_end
            && let Some(tree) = self.tree.take()
        {
            let tree = tree.finish();
            self.root = tree.root;
            self.expected = tree.bytes;
        }
        if let Some(found) = overlap(at, piece, self.tree_at, self.tree_end) {
            let start = usize::try_from(self.tree_seen).unwrap_or(usize::MAX);
            let end = start.saturating_add(found.len());
            self.tree_is_whole &= self.expected.get(start..end) == Some(found);
            self.tree_seen += found.len() as u64;
        }
        if let Some(uki) = overlap(at, piece, self.uki_at, self.uki_end) {
            self.uki.update(uki);
        }
    }

    fn finish(self) -> ([u8; 32], bool, [u8; 32]) {
        let whole = self.tree_is_whole && self.tree_seen == self.expected.len() as u64;
        (self.root, whole, self.uki.finalize().into())
    }
}

/// The part of `piece`, which lies at `at`, that is between `from` and `until`.
fn overlap(at: u64, piece: &[u8], from: u64, until: u64) -> Option<&[u8]> {
    let start = usize::try_from(from.saturating_sub(at)).ok()?.min(piece.len());
    let end = usize::try_from(until.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
    if start < end { piece.get(start..end) } else { None }
}

/// The hash over what `hasher` has been given until now.
fn so_far(hasher: &Sha256) -> [u8; 32] {
    hasher.clone().finalize().into()
}

/// `length` rounded up to whole sectors of `disk`.
fn block_of(length: usize, disk: &impl Disk) -> usize {
    length.next_multiple_of(usize::try_from(disk.sector_size()).unwrap_or(length).max(1))
}

pub(super) fn disk_fault(what: &str, shown: &str, error: io::Error) -> Failure {
    Failure::new(Class::Disk, "disk", format!("{what} {shown}: {error}; look at the disk"))
}

fn system(what: &str, error: &io::Error) -> Failure {
    Failure::new(Class::System, "system", format!("{what}: {error}"))
}
