//! The slot side of an apply by itself: an image onto a disk, with what a disk and a signed image
//! may have wrong. No registry here.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use partition_layout::disk::Disk;
use partition_layout::frames::FRAME_SIZE;
use partition_layout::labels::ImageLabels;
use partition_layout::slot::Slot;
use partition_layout::slot_image::{BLOCK, TRAILER_SIZE, Trailer};
use strict_disk::{Fate, StrictDisk};
use update_manifest::digest::Digest;
use updater::engine::checkpoint::{Checkpoint, Keep};
use updater::engine::slot::{Inspected, SlotWriter, Written, inspect_disk};
use updater::failure::{Class, Failure};

use crate::support::release::Release;

const SECTOR: u32 = 4096;

/// A slot that several hold: the writer under test, and the test.
#[derive(Clone)]
struct Medium(Arc<Mutex<StrictDisk>>);

impl Medium {
    fn lock(&self) -> MutexGuard<'_, StrictDisk> {
        self.0.lock().unwrap()
    }
}

impl Disk for Medium {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        self.lock().sector_size()
    }

    fn size(&self) -> u64 {
        self.lock().size()
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.lock().read(at, buf).map_err(io::Error::other)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.lock().write(at, data).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush().map_err(io::Error::other)
    }
}

/// A checkpoint in memory, which takes nothing that is not on the medium.
#[derive(Clone)]
struct Noted {
    text: Arc<Mutex<Vec<u8>>>,
    medium: Medium,
}

impl Keep for Noted {
    fn read(&self) -> Vec<u8> {
        self.text.lock().unwrap().clone()
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        *self.text.lock().unwrap() = content.to_vec();
        Ok(())
    }

    fn append(&self, content: &[u8]) -> io::Result<()> {
        assert!(self.medium.lock().unflushed().is_empty(), "noted before it is on the medium");
        self.text.lock().unwrap().extend_from_slice(content);
        Ok(())
    }

    fn remove(&self) {
        self.text.lock().unwrap().clear();
    }
}

/// A state partition that takes nothing.
struct NoState;

impl Keep for NoState {
    fn read(&self) -> Vec<u8> {
        Vec::new()
    }

    fn replace(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn append(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn remove(&self) {}
}

/// A slot, which holds an older release whole, and a release on its way into it.
struct Bench {
    medium: Medium,
    /// Where it is noted how far the writing came; none, where the state partition is lost.
    noted: Option<Noted>,
    release: Release,
}

impl Bench {
    fn new(release: Release) -> Bench {
        Bench::over(&Release::new(1), release)
    }

    fn over(old: &Release, release: Release) -> Bench {
        // Larger than the image, as slots are.
        let old = &old.slot;
        let mut disk = StrictDisk::zeroed(SECTOR, old.len() as u64 + (2 << 20));
        disk.put(0, old);
        let medium = Medium(Arc::new(Mutex::new(disk)));
        let noted = Some(Noted { text: Arc::default(), medium: medium.clone() });
        let bench = Bench { medium, noted, release };
        assert!(bench.is_whole());
        bench
    }

    fn writer(&self) -> Result<SlotWriter<Medium>, Failure> {
        let kept: Box<dyn Keep + Send> = match &self.noted {
            Some(noted) => Box::new(noted.clone()),
            None => Box::new(NoState),
        };
        let checkpoint = Checkpoint::new(kept, Slot::B, Digest([7; 32]));
        let release = self.release.described();
        SlotWriter::new(self.medium.clone(), "slot".into(), &release, checkpoint)
    }

    /// A writer as one run of an apply opens it, and the bytes that it took up.
    fn open(&self) -> (SlotWriter<Medium>, u64) {
        let mut writer = self.writer().unwrap();
        writer.clear_trailer().unwrap();
        let taken_up = writer.take_up().unwrap();
        (writer, taken_up)
    }

    /// Writes the first `frames` frames, or all.
    fn stream(&self, writer: &mut SlotWriter<Medium>, frames: usize) -> Written {
        let (from, _) = writer.wanted().unwrap();
        let until = self.release.frames.offset(frames).unwrap();
        let range = usize::try_from(from).unwrap()..usize::try_from(until).unwrap();
        let mut layer = Some(Bytes::copy_from_slice(&self.release.layer[range]));
        writer.consume(|| layer.take(), |_| {}).unwrap()
    }

    fn all(&self) -> usize {
        self.release.frames.slot.len()
    }

    /// Until every frame is in the slot and only the trailer is missing.
    fn written(&self) -> SlotWriter<Medium> {
        let (mut writer, _) = self.open();
        assert!(matches!(self.stream(&mut writer, self.all()), Written::All));
        writer.check_received(&self.release.described()).unwrap();
        writer
    }

    /// All of it, as one apply does it.
    fn install(&self) -> Result<(), Failure> {
        let mut writer = self.writer()?;
        writer.clear_trailer()?;
        writer.take_up()?;
        let (from, until) = writer.wanted().unwrap();
        let range = usize::try_from(from).unwrap()..usize::try_from(until).unwrap();
        let mut layer = Some(Bytes::copy_from_slice(&self.release.layer[range]));
        assert!(matches!(writer.consume(|| layer.take(), |_| {})?, Written::All));
        writer.check_received(&self.release.described())?;
        self.read_back(&mut writer)?;
        writer.write_trailer()
    }

    fn read_back(&self, writer: &mut SlotWriter<Medium>) -> Result<(), Failure> {
        writer.read_back(&self.release.described(), |_| {})
    }

    /// Changes a byte of the medium behind everybody's back.
    fn damage(&self, at: u64) {
        let (sector, byte) = (at / u64::from(SECTOR), at % u64::from(SECTOR));
        let byte = usize::try_from(byte).unwrap();
        self.medium.lock().damage(sector, |bytes| bytes[byte] ^= 1);
    }

    fn block(&self, at: u64) -> Vec<u8> {
        let mut block = vec![0; TRAILER_SIZE];
        self.medium.lock().read(at, &mut block).unwrap();
        block
    }

    fn inspect(&self) -> Result<Inspected, Failure> {
        inspect_disk(self.medium.clone(), "slot", |_| {})
    }

    fn is_whole(&self) -> bool {
        self.inspect().is_ok_and(|slot| slot.is_whole().is_ok())
    }

    fn trailer_at(&self) -> u64 {
        self.release.labels.slot_size - BLOCK
    }

    /// The power goes, and nothing arrived that was not flushed.
    fn power_cut(&self) {
        self.medium.lock().power_cut(|_| Fate::Lost);
    }
}

#[test]
fn every_step_is_on_the_medium_before_the_next_begins() {
    let bench = Bench::new(Release::new(2));
    let old_trailer = Release::new(1).labels.slot_size - BLOCK;
    let zeros = vec![0; TRAILER_SIZE];
    let mut writer = bench.writer().unwrap();
    writer.clear_trailer().unwrap();
    bench.power_cut();
    assert_eq!(bench.block(old_trailer), zeros, "cleared, and back after a cut");
    // The line breaks off: what came is noted, and not before it is on the medium (see `Noted`).
    writer.take_up().unwrap();
    assert!(matches!(bench.stream(&mut writer, 3), Written::Partly));
    bench.power_cut();
    let (mut writer, taken_up) = bench.open();
    assert_eq!(taken_up, 3 * FRAME_SIZE);
    assert!(matches!(bench.stream(&mut writer, bench.all()), Written::All));
    // What is read back is what would be there after a cut.
    assert!(bench.medium.lock().unflushed().is_empty());
    bench.read_back(&mut writer).unwrap();
    writer.write_trailer().unwrap();
    bench.power_cut();
    assert!(bench.is_whole(), "the record may say so now");
}

#[test]
fn the_old_image_is_not_spoilt_while_its_trailer_stands() {
    // The place of the new trailer lies inside the old image, where that has no zeros.
    let new_trailer = usize::try_from(Release::new(2).labels.slot_size - BLOCK).unwrap();
    let old = Release::altered(9, |slot, _| slot[new_trailer..][..TRAILER_SIZE].fill(1));
    let old_trailer = old.labels.slot_size - BLOCK;
    let bench = Bench::over(&old, Release::new(2));
    let before = bench.medium.lock().clone();
    for operations in 0.. {
        *bench.medium.lock() = before.clone();
        let mut writer = bench.writer().unwrap();
        bench.medium.lock().operations_left = Some(operations);
        let done = writer.clear_trailer();
        let last = |sector: u64| sector == old_trailer / u64::from(SECTOR);
        let fate = |sector| if last(sector) { Fate::Lost } else { Fate::Kept };
        bench.medium.lock().power_cut(fate);
        bench.medium.lock().power_on();
        let stands = Trailer::decode(&bench.block(old_trailer)).is_ok();
        let is_old = bench.inspect().is_ok_and(|slot| slot.sha256 == old.labels.slot_sha256);
        assert!(!stands || is_old, "cut after {operations} operations");
        if done.is_ok() {
            assert!(!stands, "cleared, and back after a cut");
            break;
        }
    }
}

/// The power goes at each operation of the disk in turn, and of what was not flushed only the new
/// trailer arrives: the worst that a disk may do.
#[test]
fn a_trailer_on_the_medium_means_a_whole_image_wherever_the_power_goes() {
    let bench = Bench { noted: None, ..Bench::new(Release::new(2)) };
    let before = bench.medium.lock().clone();
    for operations in 0.. {
        *bench.medium.lock() = before.clone();
        bench.medium.lock().operations_left = Some(operations);
        let done = bench.install();
        let unflushed = bench.medium.lock().unflushed();
        let trailer = bench.trailer_at() / u64::from(SECTOR);
        let fate = |sector| if sector >= trailer { Fate::Kept } else { Fate::Lost };
        bench.medium.lock().power_cut(fate);
        bench.medium.lock().power_on();
        let stands = Trailer::decode(&bench.block(bench.trailer_at())).is_ok();
        let lost = unflushed.iter().filter(|sector| **sector < trailer).count();
        let first = unflushed.first();
        assert!(
            !stands || bench.is_whole(),
            "crash history: an install, the power goes after {operations} operations of the disk; \
             of what was not flushed the trailer's sectors from {trailer} arrive, {lost} sectors \
             from {first:?} do not: a valid trailer stands over an image that is not whole"
        );
        if done.is_ok() {
            assert!(stands, "installed, and gone after a cut");
            break;
        }
    }
}

#[test]
fn a_disk_that_takes_the_trailer_and_does_not_keep_it_is_told() {
    let bench = Bench::new(Release::new(2));
    let mut writer = bench.written();
    bench.read_back(&mut writer).unwrap();
    bench.medium.lock().stuck.insert(bench.trailer_at() / u64::from(SECTOR));
    assert_eq!(writer.write_trailer().unwrap_err().class, Class::Disk);
}

#[test]
fn the_trailer_comes_last_and_that_of_the_old_image_goes_first() {
    let bench = Bench::new(Release::new(2));
    let old_trailer = Release::new(1).labels.slot_size - BLOCK;
    assert!(Trailer::decode(&bench.block(old_trailer)).is_ok());
    let (mut writer, taken_up) = bench.open();
    assert_eq!(taken_up, 0);
    let zeros = vec![0; TRAILER_SIZE];
    assert_eq!(bench.block(old_trailer), zeros, "nobody starts what is half overwritten");
    assert!(matches!(bench.stream(&mut writer, bench.all()), Written::All));
    writer.check_received(&bench.release.described()).unwrap();
    assert_eq!(bench.block(bench.trailer_at()), zeros, "not before the slot is read back");
    bench.read_back(&mut writer).unwrap();
    assert_eq!(bench.block(bench.trailer_at()), zeros);
    assert!(!bench.is_whole());
    writer.write_trailer().unwrap();
    assert!(bench.is_whole());
    let slot = bench.inspect().unwrap();
    assert_eq!(slot.agrees(&bench.release.described()), Ok(()));
    assert_eq!(slot.sha256, bench.release.labels.slot_sha256);
}

#[test]
fn a_trailer_that_is_there_already_is_zeroed_too() {
    // A cut came between trailer and record: the same image is written once more.
    let bench = Bench::new(Release::new(2));
    let mut writer = bench.written();
    writer.write_trailer().unwrap();
    assert!(bench.is_whole());
    drop(bench.open());
    assert!(!bench.is_whole());
}

#[test]
fn what_the_disk_gives_back_is_compared_and_is_the_disks_fault() {
    let bench = Bench::new(Release::new(2));
    let uki_at = bench.release.labels.slot_size - 4 * BLOCK;
    for at in [4096, FRAME_SIZE + 7, 3 * FRAME_SIZE + 4096, uki_at, bench.trailer_at() - 1] {
        let mut writer = bench.written();
        bench.read_back(&mut writer).unwrap();
        bench.damage(at);
        let failure = bench.read_back(&mut writer).unwrap_err();
        assert_eq!((failure.class, failure.kind.as_str()), (Class::Disk, "read-back"), "byte {at}");
    }
}

#[test]
fn a_signed_image_that_contradicts_itself_is_not_sealed() {
    type Change = fn(&mut Vec<u8>, &mut ImageLabels);
    const DATA: usize = 3 << 20;
    let changes: [(&str, Change); 7] = [
        ("the root hash differs from the trailer's", |slot, _| slot[5000] ^= 1),
        ("the hash tree differs from the data", |slot, _| slot[DATA + 4096 + 100] ^= 1),
        ("the root hash differs from the label's", |_, labels| labels.root_hash[0] ^= 1),
        ("the header does not lead to the trailer", |slot, _| slot[16] ^= 1),
        ("no valid trailer", |slot, _| *slot.last_mut().unwrap() ^= 1),
        ("trailer and labels name different releases", |_, labels| labels.secver += 1),
        ("the kernel image differs from the trailer's hash", |slot, labels| {
            let trailer_at = usize::try_from(labels.slot_size - BLOCK).unwrap();
            let uki_at = Trailer::decode(&slot[trailer_at..]).unwrap().uki_at;
            slot[usize::try_from(uki_at).unwrap() + 4999] ^= 1;
        }),
    ];
    for (why, change) in changes {
        let bench = Bench::new(Release::altered(2, change));
        let failure = bench.read_back(&mut bench.written()).unwrap_err();
        assert_eq!(failure.class, Class::Corrupt, "{failure:?}");
        assert!(failure.message.ends_with(why), "{failure:?}");
    }
}

#[test]
fn what_is_found_again_is_what_the_medium_holds_and_not_what_was_noted() {
    let bench = Bench::new(Release::new(2));
    let (mut writer, _) = bench.open();
    assert!(matches!(bench.stream(&mut writer, 3), Written::Partly));
    drop(writer);
    assert_eq!(bench.open().1, 3 * FRAME_SIZE);
    bench.damage(FRAME_SIZE + 7);
    let (mut writer, taken_up) = bench.open();
    assert_eq!(taken_up, FRAME_SIZE);
    assert!(matches!(bench.stream(&mut writer, bench.all()), Written::All));
    writer.check_received(&bench.release.described()).unwrap();
    bench.read_back(&mut writer).unwrap();
    writer.write_trailer().unwrap();
    assert!(bench.is_whole());
}

#[test]
fn other_bytes_than_were_signed_are_found_when_they_have_come() {
    // The frames of another image, each of them good in itself.
    let mut bench = Bench::new(Release::new(2));
    let signed = bench.release.described();
    bench.release = Release::altered(2, |slot, _| slot[5000] ^= 1);
    let (mut writer, _) = bench.open();
    assert!(matches!(bench.stream(&mut writer, bench.all()), Written::All));
    assert_eq!(writer.check_received(&signed).unwrap_err().class, Class::Corrupt);
    drop(writer);
    assert_eq!(bench.open().1, 0, "and not taken up by the next run");
}

#[test]
fn a_slot_that_is_too_small_is_not_touched() {
    let mut bench = Bench::new(Release::new(2));
    let size = bench.release.labels.slot_size - BLOCK;
    bench.medium = Medium(Arc::new(Mutex::new(StrictDisk::new(SECTOR, size))));
    // This disk ends the test at any access: nobody ever wrote to it.
    bench.medium.lock().allow_writes(Some(Vec::new()));
    assert_eq!(bench.writer().map(drop).unwrap_err().kind, "too-large");
}

#[test]
fn a_frame_of_another_length_than_its_place_has_is_refused() {
    let mut bench = Bench::new(Release::new(2));
    // The last frame, which is shorter, in the place of the first.
    let last = bench.all() - 1;
    let from = bench.release.frames.offset(last).unwrap();
    bench.release.frames.slot.swap(0, last);
    let (mut writer, _) = bench.open();
    let from = usize::try_from(from).unwrap();
    let size = bench.release.frames.slot[0] as usize;
    let mut layer = Some(Bytes::copy_from_slice(&bench.release.layer[from..from + size]));
    let written = writer.consume(|| layer.take(), |_| {}).unwrap();
    let Written::BadFrame(why) = written else { panic!("{written:?}") };
    assert!(why.contains("not 1048576"), "{why}");
    assert_eq!(writer.done(), 0);
}
