//! A disk in memory that is stricter than a real one.
//!
//! - Nothing is durable before a flush. A power cut keeps, loses, tears or spoils each sector that
//!   was written and not flushed, by itself.
//! - A misaligned access, one outside the disk, a read of what nobody ever wrote, and a write where
//!   none is allowed are *violations*: they end the test, or are noted where it tells more.
//! - Sectors may be unreadable, refuse writes, or take them and keep the old content.
//!
//! Only sectors that were written take memory, so that a disk may be larger than any real one.

pub mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

use partition_layout::disk::Disk;

/// What becomes of a sector that was written and not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// What was written last arrived.
    Kept,
    /// Nothing arrived.
    Lost,
    /// Neither old nor new: what a torn flash page reads as.
    Garbage,
    /// The front new, the rest zeros.
    FrontThenZeros,
    /// The front new, the rest old.
    FrontThenOld,
    /// The front old, the rest new.
    OldThenBack,
}

impl Fate {
    /// Every fate of one sector.
    pub const ALL: [Fate; 6] = [
        Fate::Kept,
        Fate::Lost,
        Fate::Garbage,
        Fate::FrontThenZeros,
        Fate::FrontThenOld,
        Fate::OldThenBack,
    ];

    /// The words for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Fate::Kept => "kept",
            Fate::Lost => "lost",
            Fate::Garbage => "garbage",
            Fate::FrontThenZeros => "torn, new then zeros",
            Fate::FrontThenOld => "torn, new then old",
            Fate::OldThenBack => "torn, old then new",
        }
    }
}

/// Bytes of a torn sector that belong to its front: half a small sector, and within the record also
/// in a large one.
const FRONT: usize = 256;

/// Why an access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The power is gone; so it stays until [`StrictDisk::power_on`].
    PowerCut,
    /// The medium.
    Medium,
    /// An access that nobody may make; see [`StrictDisk::violations`].
    Violation,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Failure::PowerCut => "the power is gone",
            Failure::Medium => "the medium failed",
            Failure::Violation => "an access that nobody may make",
        })
    }
}

impl std::error::Error for Failure {}

/// A sector's content and its hash.
#[derive(Debug, Clone)]
struct Sector {
    data: Arc<[u8]>,
    hash: u64,
}

impl Sector {
    fn new(data: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        Self { data: data.into(), hash: hasher.finish() }
    }
}

/// The disk.
#[derive(Debug, Clone)]
pub struct StrictDisk {
    sector_size: u32,
    size: u64,
    durable: BTreeMap<u64, Sector>,
    /// Written since the last flush.
    fresh: BTreeMap<u64, Sector>,
    /// Sectors that read as zeros although nobody wrote them.
    zeroed: Vec<Range<u64>>,
    /// Where alone writes are allowed, if anything is said of it.
    writable: Option<Vec<Range<u64>>>,
    /// Where writes are never allowed, and why.
    forbidden: Vec<(Range<u64>, String)>,
    /// Writes are taken and never arrive.
    pub stuck: BTreeSet<u64>,
    /// Writes fail.
    pub unwritable: BTreeSet<u64>,
    /// Reads fail.
    pub unreadable: BTreeSet<u64>,
    /// The size that the disk tells, in bytes, where that is not the truth.
    pub claims: Option<u64>,
    /// Operations until the power goes.
    pub operations_left: Option<u32>,
    /// Flushes are answered and do nothing.
    pub flush_lies: bool,
    /// Violations are noted and fail, instead of ending the test at once.
    pub notes_violations: bool,
    /// What nobody may do and was done.
    pub violations: Vec<String>,
}

impl StrictDisk {
    /// A disk of `size` bytes on which nothing was ever written.
    #[must_use]
    pub fn new(sector_size: u32, size: u64) -> Self {
        Self {
            sector_size,
            size,
            durable: BTreeMap::new(),
            fresh: BTreeMap::new(),
            zeroed: Vec::new(),
            writable: None,
            forbidden: Vec::new(),
            stuck: BTreeSet::new(),
            unwritable: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            claims: None,
            operations_left: None,
            flush_lies: false,
            notes_violations: false,
            violations: Vec::new(),
        }
    }

    /// A disk of `size` bytes that reads as zeros: an image file.
    #[must_use]
    pub fn zeroed(sector_size: u32, size: u64) -> Self {
        let mut disk = Self::new(sector_size, size);
        disk.zero(0..size);
        disk
    }

    /// The bytes of this range read as zeros from the start, as in an image file.
    pub fn zero(&mut self, bytes: Range<u64>) {
        let unit = u64::from(self.sector_size);
        self.zeroed.push(bytes.start / unit..bytes.end / unit);
    }

    /// The size that the disk really has, in bytes.
    #[must_use]
    pub fn true_size(&self) -> u64 {
        self.size
    }

    /// The disk is made larger by so many bytes, on which nothing was ever written.
    pub fn grow(&mut self, bytes: u64) {
        self.size += bytes;
    }

    /// From here on a write outside these byte ranges is a violation; `None` allows all.
    pub fn allow_writes(&mut self, ranges: Option<Vec<Range<u64>>>) {
        let unit = u64::from(self.sector_size);
        self.writable = ranges.map(|ranges| {
            ranges.into_iter().map(|range| range.start / unit..range.end.div_ceil(unit)).collect()
        });
    }

    /// From here on a write into these bytes is a violation.
    pub fn forbid_writes(&mut self, bytes: Range<u64>, why: &str) {
        let unit = u64::from(self.sector_size);
        self.forbidden.push((bytes.start / unit..bytes.end.div_ceil(unit), why.to_owned()));
    }

    /// Forgets what [`StrictDisk::forbid_writes`] said.
    pub fn forbid_nothing(&mut self) {
        self.forbidden.clear();
    }

    /// The sectors that were written and not flushed.
    #[must_use]
    pub fn unflushed(&self) -> Vec<u64> {
        self.fresh.keys().copied().collect()
    }

    /// The power goes; every sector that was not flushed meets its fate.
    pub fn power_cut(&mut self, mut fate: impl FnMut(u64) -> Fate) {
        for (sector, new) in std::mem::take(&mut self.fresh) {
            let front = FRONT.min(new.data.len());
            let old = || match self.durable.get(&sector) {
                Some(old) => old.data.to_vec(),
                None => vec![0; new.data.len()],
            };
            let becomes = match fate(sector) {
                Fate::Kept => new,
                Fate::Lost => continue,
                Fate::Garbage => {
                    Sector::new(&new.data.iter().map(|byte| byte ^ 0xA5).collect::<Vec<u8>>())
                }
                Fate::FrontThenZeros => {
                    let mut torn = new.data.to_vec();
                    torn[front..].fill(0);
                    Sector::new(&torn)
                }
                Fate::FrontThenOld => {
                    let mut torn = old();
                    torn[..front].copy_from_slice(&new.data[..front]);
                    Sector::new(&torn)
                }
                Fate::OldThenBack => {
                    let mut torn = old();
                    torn[front..].copy_from_slice(&new.data[front..]);
                    Sector::new(&torn)
                }
            };
            self.durable.insert(sector, becomes);
        }
    }

    /// The power is back.
    pub fn power_on(&mut self) {
        self.operations_left = None;
    }

    /// Changes the medium behind everybody's back.
    pub fn damage(&mut self, sector: u64, change: impl FnOnce(&mut [u8])) {
        let mut data = match self.durable.get(&sector) {
            Some(old) => old.data.to_vec(),
            None => vec![0; self.sector_size as usize],
        };
        change(&mut data);
        self.durable.insert(sector, Sector::new(&data));
    }

    /// Puts `data` on the medium at byte `at`, past every rule: how a disk comes out of the factory.
    pub fn put(&mut self, at: u64, data: &[u8]) {
        let unit = u64::from(self.sector_size);
        for (sector, part) in (at / unit..).zip(data.chunks(self.sector_size as usize)) {
            self.damage(sector, |old| old[..part.len()].copy_from_slice(part));
        }
    }

    /// A number that tells the content of these bytes, as they would be read now.
    #[must_use]
    pub fn fingerprint(&self, bytes: Range<u64>) -> u64 {
        let unit = u64::from(self.sector_size);
        let sectors = bytes.start / unit..bytes.end / unit;
        let mut hasher = DefaultHasher::new();
        for (sector, old) in self.durable.range(sectors.clone()) {
            let now = self.fresh.get(sector).unwrap_or(old);
            (sector - sectors.start, now.hash).hash(&mut hasher);
        }
        for (sector, new) in self.fresh.range(sectors.clone()) {
            if !self.durable.contains_key(sector) {
                (sector - sectors.start, new.hash).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn spend(&mut self) -> Result<(), Failure> {
        match &mut self.operations_left {
            Some(0) => Err(Failure::PowerCut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn violation(&mut self, what: String) -> Failure {
        assert!(self.notes_violations, "{what}");
        self.violations.push(what);
        Failure::Violation
    }

    fn sectors(&mut self, what: &str, at: u64, length: usize) -> Result<Range<u64>, Failure> {
        let unit = u64::from(self.sector_size);
        let end = at.checked_add(length as u64);
        let whole = at.is_multiple_of(unit) && (length as u64).is_multiple_of(unit) && length > 0;
        match end.filter(|end| whole && *end <= self.claims.unwrap_or(self.size)) {
            // Whoever believed the disk is not to blame.
            Some(end) if end > self.size => Err(Failure::Medium),
            Some(end) => Ok(at / unit..end / unit),
            None => Err(self.violation(format!(
                "{what} of {length} bytes at {at}: not whole sectors of {unit} within {}",
                self.size
            ))),
        }
    }

    fn check_write(&mut self, sectors: &Range<u64>) -> Result<(), Failure> {
        let overlaps = |range: &Range<u64>| range.start < sectors.end && sectors.start < range.end;
        if let Some((_, why)) = self.forbidden.iter().find(|(range, _)| overlaps(range)) {
            let what = format!("write to sectors {sectors:?}: {why}");
            return Err(self.violation(what));
        }
        let inside = |range: &Range<u64>| range.start <= sectors.start && sectors.end <= range.end;
        if self.writable.as_ref().is_some_and(|ranges| !ranges.iter().any(inside)) {
            let what = format!("write to sectors {sectors:?}: outside what may be written");
            return Err(self.violation(what));
        }
        Ok(())
    }
}

impl Disk for StrictDisk {
    type Error = Failure;

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        self.claims.unwrap_or(self.size)
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Failure> {
        self.spend()?;
        let sectors = self.sectors("read", at, buf.len())?;
        if self.unreadable.range(sectors.clone()).next().is_some() {
            return Err(Failure::Medium);
        }
        for (sector, part) in sectors.zip(buf.chunks_exact_mut(self.sector_size as usize)) {
            match self.fresh.get(&sector).or(self.durable.get(&sector)) {
                Some(found) => part.copy_from_slice(&found.data),
                None if self.zeroed.iter().any(|range| range.contains(&sector)) => part.fill(0),
                None => {
                    return Err(self.violation(format!("read of sector {sector}: never written")));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Failure> {
        self.spend()?;
        let sectors = self.sectors("write", at, data.len())?;
        self.check_write(&sectors)?;
        if self.unwritable.range(sectors.clone()).next().is_some() {
            return Err(Failure::Medium);
        }
        for (sector, part) in sectors.zip(data.chunks_exact(self.sector_size as usize)) {
            if !self.stuck.contains(&sector) {
                self.fresh.insert(sector, Sector::new(part));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.spend()?;
        if !self.flush_lies {
            let fresh = std::mem::take(&mut self.fresh);
            self.durable.extend(fresh);
        }
        Ok(())
    }
}
