//! A recorded disk at any moment, without writing it out: the disk before the log, and for each
//! sector the number of the entry that wrote it last.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use partition_layout::disk::Disk;
use partition_layout::gpt;
use partition_layout::guid;

use crate::write_log::{Entry, Kind, Log};

/// Size of a sector in bytes: that of the virtual disk and of its log.
pub const SECTOR: u64 = 512;
/// The same, as a length of memory.
const SECTOR_LENGTH: usize = 512;

/// What a part of the disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Partition tables, the EFI system partition, and what lies between.
    Elsewhere,
    /// The boot record.
    Record,
    /// Slot A.
    SlotA,
    /// Slot B.
    SlotB,
    /// The state partition.
    State,
}

impl Area {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Elsewhere, Self::Record, Self::SlotA, Self::SlotB, Self::State];

    fn index(self) -> usize {
        self as usize
    }
}

/// Where the areas lie, in sectors; what is in none of them is [`Area::Elsewhere`].
#[derive(Debug, Clone, Default)]
pub struct Areas(Vec<(Area, std::ops::Range<u64>)>);

impl Areas {
    /// The areas of the partition table that `disk` holds.
    ///
    /// # Errors
    /// There is no table, or one of ours is not in it.
    pub fn of<D: Disk>(disk: &mut D) -> Result<Self> {
        let (table, _) = gpt::read(disk).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let area = |area, kind| {
            let entry = table.find(kind).with_context(|| format!("no partition for {area:?}"))?;
            anyhow::Ok((area, entry.first..entry.last.saturating_add(1)))
        };
        Ok(Self(vec![
            area(Area::Record, guid::RECORD)?,
            area(Area::SlotA, guid::SLOT_A)?,
            area(Area::SlotB, guid::SLOT_B)?,
            area(Area::State, guid::STATE)?,
        ]))
    }

    /// The area of a sector.
    #[must_use]
    pub fn of_sector(&self, sector: u64) -> Area {
        let found = self.0.iter().find(|(_, range)| range.contains(&sector));
        found.map_or(Area::Elsewhere, |(area, _)| *area)
    }

    /// Where an area lies, in bytes; nothing for [`Area::Elsewhere`].
    #[must_use]
    pub fn range(&self, area: Area) -> std::ops::Range<u64> {
        let found = self.0.iter().find(|(known, _)| *known == area);
        found.map_or(0..0, |(_, range)| range.start * SECTOR..range.end * SECTOR)
    }
}

/// A part of a logged write that reached the medium without a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    /// Number of the entry in the log.
    pub entry: usize,
    /// First sector of the part, counted from the write's first.
    pub skip: u64,
    /// Number of sectors.
    pub sectors: u64,
}

/// What a power cut left: all writes of the first `flushed` entries, and `kept` of later ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cut {
    /// Number of entries that a flush made durable.
    pub flushed: usize,
    /// What else arrived, in the order of the log.
    pub kept: Vec<Run>,
}

/// The disk as it was after some flush, able to go on to the next.
pub struct Timeline {
    base: File,
    size: u64,
    log: Arc<Log>,
    /// For each sector 0 for the base, else one more than the entry that wrote it.
    index: Vec<u32>,
    applied: usize,
    areas: Areas,
    /// For each area a number that tells contents apart.
    marks: [u64; 5],
}

impl Timeline {
    /// Begins at the raw disk `base`, before the first entry of `log`.
    ///
    /// # Errors
    /// The disk cannot be read, or holds no partition table of ours.
    pub fn new(base: &Path, log: Arc<Log>) -> Result<Self> {
        let base = File::open(base).with_context(|| format!("open {}", base.display()))?;
        let size = base.metadata().context("look at the base disk")?.len();
        let sectors = usize::try_from(size / SECTOR).context("size of the base disk")?;
        let areas = Areas::default();
        let index = vec![0; sectors];
        let mut timeline = Self { base, size, log, index, applied: 0, areas, marks: [0; 5] };
        timeline.areas = Areas::of(&mut timeline.rebuilt(&[]))?;
        Ok(timeline)
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where things lie.
    pub fn areas(&self) -> &Areas {
        &self.areas
    }

    /// Goes on until the first `entries` entries are on the medium. There is no way back.
    pub fn advance(&mut self, entries: usize) {
        let Self { log, index, areas, marks, applied, .. } = self;
        let new = log.entries().get(*applied..entries).unwrap_or_default();
        for (entry, number) in new.iter().zip(*applied..) {
            if !matches!(entry.kind, Kind::Write { .. }) {
                continue;
            }
            let source = u32::try_from(number + 1).unwrap_or(u32::MAX);
            for sector in entry.at / SECTOR..(entry.at + entry.length) / SECTOR {
                let place = usize::try_from(sector).ok().and_then(|it| index.get_mut(it));
                let Some(place) = place else { continue };
                if let Some(mark) = marks.get_mut(areas.of_sector(sector).index()) {
                    *mark ^= mixed(sector, *place) ^ mixed(sector, source);
                }
                *place = source;
            }
        }
        self.applied = self.applied.max(entries);
    }

    /// The disk as it is now, with `kept` on it as well.
    pub fn rebuilt<'a>(&'a self, kept: &'a [Run]) -> Rebuilt<'a> {
        let read = Cell::new([false; 5]);
        Rebuilt { timeline: self, kept, written: BTreeMap::new(), read }
    }

    /// A number that differs when an area's content does: the same entries give the same number.
    pub fn mark(&self, area: Area, kept: &[Run]) -> u64 {
        let mut mark = self.marks.get(area.index()).copied().unwrap_or_default();
        for run in kept {
            let Some(entry) = self.log.entries().get(run.entry) else { continue };
            let first = entry.at / SECTOR + run.skip;
            if self.areas.of_sector(first) == area {
                // Order counts: of two parts that overlap the later one is read.
                for part in [run.entry as u64, run.skip, run.sectors] {
                    mark = mixed(mark.rotate_left(7) ^ part, 1);
                }
            }
        }
        mark
    }

    fn read_durable(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut sector = at / SECTOR;
        let mut rest = buf;
        while !rest.is_empty() {
            let source = self.source(sector)?;
            let mut sectors = 1;
            while sectors < rest.len() / SECTOR_LENGTH
                && self.source(sector + sectors as u64)? == source
            {
                sectors += 1;
            }
            let (piece, behind) = rest.split_at_mut(sectors * SECTOR_LENGTH);
            match source.checked_sub(1) {
                None => self.base.read_exact_at(piece, sector * SECTOR)?,
                Some(number) => self.read_entry(number as usize, sector, piece)?,
            }
            sector += sectors as u64;
            rest = behind;
        }
        Ok(())
    }

    fn source(&self, sector: u64) -> io::Result<u32> {
        let found = usize::try_from(sector).ok().and_then(|it| self.index.get(it));
        found
            .copied()
            .ok_or_else(|| io::Error::other(format!("sector {sector} is not on the disk")))
    }

    /// Bytes that the entry wrote, from the disk's `sector` on.
    fn read_entry(&self, number: usize, sector: u64, into: &mut [u8]) -> io::Result<()> {
        match self.log.entries().get(number) {
            Some(Entry { at, kind: Kind::Write { data_at, .. }, .. }) => {
                self.log.read(data_at + (sector * SECTOR).saturating_sub(*at), into)
            }
            _ => Err(io::Error::other(format!("entry {number} is no write"))),
        }
    }
}

/// SplitMix64's last steps.
fn mixed(sector: u64, source: u32) -> u64 {
    let mut value = sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(source).rotate_left(40);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A rebuilt disk. What is written to it stays in memory and is forgotten with it.
pub struct Rebuilt<'a> {
    timeline: &'a Timeline,
    kept: &'a [Run],
    written: BTreeMap<u64, Vec<u8>>,
    read: Cell<[bool; 5]>,
}

impl Rebuilt<'_> {
    /// The areas that were read.
    pub fn areas_read(&self) -> impl Iterator<Item = Area> {
        let read = self.read.get();
        Area::ALL.into_iter().filter(move |area| read.get(area.index()) == Some(&true))
    }

    fn note(&self, at: u64) {
        let mut read = self.read.get();
        if let Some(it) = read.get_mut(self.timeline.areas.of_sector(at / SECTOR).index()) {
            *it = true;
        }
        self.read.set(read);
    }

    fn overlay_kept(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let (first, end) = (at / SECTOR, at / SECTOR + buf.len() as u64 / SECTOR);
        for run in self.kept {
            let Some(entry) = self.timeline.log.entries().get(run.entry) else { continue };
            let start = entry.at / SECTOR + run.skip;
            let (from, until) = (start.max(first), (start + run.sectors).min(end));
            if from >= until {
                continue;
            }
            let piece = slice(buf, from - first, until - first)?;
            self.timeline.read_entry(run.entry, from, piece)?;
        }
        Ok(())
    }
}

fn slice(buf: &mut [u8], from: u64, until: u64) -> io::Result<&mut [u8]> {
    let place = |sector: u64| usize::try_from(sector * SECTOR).unwrap_or(usize::MAX);
    buf.get_mut(place(from)..place(until)).ok_or_else(|| io::Error::other("outside the buffer"))
}

impl Disk for Rebuilt<'_> {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        512
    }

    fn size(&self) -> u64 {
        self.timeline.size
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if !at.is_multiple_of(SECTOR) || !buf.len().is_multiple_of(SECTOR_LENGTH) {
            return Err(io::Error::other(format!("{} bytes at {at} are no sectors", buf.len())));
        }
        self.note(at);
        self.timeline.read_durable(at, buf)?;
        self.overlay_kept(at, buf)?;
        let first = at / SECTOR;
        for (sector, data) in self.written.range(first..first + buf.len() as u64 / SECTOR) {
            slice(buf, sector - first, sector - first + 1)?.copy_from_slice(data);
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        for (sector, piece) in (at / SECTOR..).zip(data.chunks_exact(SECTOR_LENGTH)) {
            self.written.insert(sector, piece.to_vec());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of a disk, with the disk's own errors.
pub struct Part<'a, D> {
    disk: &'a mut D,
    range: std::ops::Range<u64>,
}

impl<'a, D: Disk<Error = io::Error>> Part<'a, D> {
    /// The bytes `range` of `disk`.
    pub fn new(disk: &'a mut D, range: std::ops::Range<u64>) -> Self {
        Self { disk, range }
    }

    fn place(&self, at: u64, length: usize) -> io::Result<u64> {
        let start = self.range.start.checked_add(at);
        let end = start.and_then(|start| start.checked_add(length as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.range.end => Ok(start),
            _ => Err(io::Error::other(format!("{length} bytes at {at} are outside the part"))),
        }
    }
}

impl<D: Disk<Error = io::Error>> Disk for Part<'_, D> {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let place = self.place(at, buf.len())?;
        self.disk.read(place, buf)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let place = self.place(at, data.len())?;
        self.disk.write(place, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use partition_layout::gpt::Table;
    use partition_layout::guid::Guid;
    use partition_layout::layout::MIB;

    use super::*;
    use crate::prove::boots::write_out;
    use crate::write_log::tests::{entry, head};

    const SIZE: u64 = 16 * MIB;
    const RECORD_AT: u64 = 2048;

    /// A disk with our table, a log over it, and a folder that holds both.
    fn made(name: &str, entries: &[Vec<u8>]) -> (std::path::PathBuf, Timeline) {
        let dir = std::env::temp_dir().join(format!("timeline-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut table = Table::new(Guid([1; 16]), 512, SIZE).unwrap();
        for (number, kind) in (1..).zip([guid::RECORD, guid::SLOT_A, guid::SLOT_B, guid::STATE]) {
            table = table.append(kind, Guid([number; 16]), "x", Some(2 * MIB)).unwrap();
        }
        let mut base = vec![0; SIZE as usize];
        for write in table.writes() {
            let at = write.at as usize;
            base[at..at + write.data.len()].copy_from_slice(&write.data);
        }
        std::fs::write(dir.join("base.raw"), base).unwrap();
        let log: Vec<u8> =
            [head(entries.len() as u64)].iter().chain(entries).flatten().copied().collect();
        std::fs::write(dir.join("log"), log).unwrap();
        let log = Log::open(&dir.join("log")).unwrap();
        let timeline = Timeline::new(&dir.join("base.raw"), log.into()).unwrap();
        (dir, timeline)
    }

    fn written(sector: u64, bytes: &[u8]) -> Vec<u8> {
        let data: Vec<u8> = bytes.iter().flat_map(|byte| [*byte; SECTOR_LENGTH]).collect();
        entry(sector, bytes.len() as u64, 0, &data)
    }

    /// The first byte of each of `sectors` sectors from `first` on, as one read gives them.
    fn read(disk: &mut Rebuilt<'_>, first: u64, sectors: usize) -> Vec<u8> {
        let mut bytes = vec![0; sectors * SECTOR_LENGTH];
        disk.read(first * SECTOR, &mut bytes).unwrap();
        bytes.chunks(SECTOR_LENGTH).map(|sector| sector[0]).collect()
    }

    #[test]
    fn the_newest_write_is_read_and_the_view_is_the_disk_that_is_written_out() {
        let flush = || entry(0, 0, 1, &[]);
        let entries = [
            written(RECORD_AT, &[1, 2, 3, 4]),
            flush(),
            written(RECORD_AT + 1, &[7, 8]),
            written(RECORD_AT + 2, &[9, 9, 9]),
            flush(),
        ];
        let (dir, mut timeline) = made("newest", &entries);
        let run = |entry, skip, sectors| Run { entry, skip, sectors };
        for (cut, expected) in [
            (Cut { flushed: 0, kept: vec![] }, [0, 0, 0, 0, 0]),
            (Cut { flushed: 0, kept: vec![run(0, 1, 2)] }, [0, 2, 3, 0, 0]),
            (Cut { flushed: 2, kept: vec![] }, [1, 2, 3, 4, 0]),
            (Cut { flushed: 2, kept: vec![run(2, 1, 1)] }, [1, 2, 8, 4, 0]),
            (Cut { flushed: 2, kept: vec![run(2, 0, 2), run(3, 0, 1)] }, [1, 7, 9, 4, 0]),
            (Cut { flushed: 5, kept: vec![] }, [1, 7, 9, 9, 9]),
        ] {
            timeline.advance(cut.flushed);
            let mut disk = timeline.rebuilt(&cut.kept);
            assert_eq!(read(&mut disk, RECORD_AT, 5), expected, "{cut:?}");
            assert_eq!(read(&mut disk, RECORD_AT + 2, 2), expected[2..4], "{cut:?}");
            let mut whole = vec![0; SIZE as usize];
            disk.read(0, &mut whole).unwrap();
            write_out(&dir.join("base.raw"), timeline.log(), &cut, &dir.join("out.raw")).unwrap();
            assert!(std::fs::read(dir.join("out.raw")).unwrap() == whole, "{cut:?}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_mark_changes_with_its_own_area_only() {
        let slot_a = RECORD_AT + 2 * MIB / SECTOR;
        let (dir, mut timeline) = made("mark", &[written(slot_a, &[1, 2]), entry(0, 0, 1, &[])]);
        let marks = |timeline: &Timeline, kept: &[Run]| Area::ALL.map(|it| timeline.mark(it, kept));
        let before = marks(&timeline, &[]);
        let torn = marks(&timeline, &[Run { entry: 0, skip: 1, sectors: 1 }]);
        timeline.advance(2);
        let after = marks(&timeline, &[]);
        std::fs::remove_dir_all(&dir).unwrap();
        for area in Area::ALL {
            let differ = [before, torn, after].map(|marks| marks[area.index()]);
            let changes =
                differ[0] != differ[1] && differ[0] != differ[2] && differ[1] != differ[2];
            let same = differ[0] == differ[1] && differ[0] == differ[2];
            assert!(if area == Area::SlotA { changes } else { same }, "{area:?}");
        }
    }

    #[test]
    fn what_is_written_to_a_rebuilt_disk_is_read_there_and_nowhere_else() {
        let (dir, timeline) = made("written", &[]);
        let mut disk = timeline.rebuilt(&[]);
        disk.write((RECORD_AT + 1) * SECTOR, &[5; SECTOR_LENGTH]).unwrap();
        assert_eq!(read(&mut disk, RECORD_AT, 3), [0, 5, 0]);
        assert_eq!(read(&mut timeline.rebuilt(&[]), RECORD_AT, 3), [0, 0, 0]);
        assert!(disk.read(SIZE, &mut [0; SECTOR_LENGTH]).is_err());
        let mut part = Part::new(&mut disk, SECTOR..3 * SECTOR);
        assert!(part.read(SECTOR, &mut [0; SECTOR_LENGTH]).is_ok());
        assert!(part.read(2 * SECTOR, &mut [0; SECTOR_LENGTH]).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
