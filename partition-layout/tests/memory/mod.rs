//! A disk in memory that is stricter than a real one: nothing is durable before a flush, a power
//! cut may keep, lose or spoil each sector that was not, and misaligned access fails the test.
#![allow(dead_code, reason = "each test file uses its own part")]

use partition_layout::disk::Disk;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a sector that was written and not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Lost,
    /// Neither old nor new: what a torn flash page reads as.
    Garbage,
    /// The front half new, the rest zeros.
    HalfZero,
}

pub const FATES: [Fate; 4] = [Fate::Kept, Fate::Lost, Fate::Garbage, Fate::HalfZero];

/// Why an access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The power is gone; so it stays until [`Memory::power_on`].
    PowerCut,
    /// The medium.
    Medium,
}

#[derive(Debug, Clone)]
pub struct Memory {
    sector_size: u32,
    size: u64,
    durable: BTreeMap<u64, Vec<u8>>,
    /// Written since the last flush.
    pub fresh: BTreeMap<u64, Vec<u8>>,
    /// Writes are taken and never arrive.
    pub stuck: BTreeSet<u64>,
    /// Writes fail.
    pub unwritable: BTreeSet<u64>,
    /// Reads fail.
    pub unreadable: BTreeSet<u64>,
    /// Operations until the power goes.
    pub operations_left: Option<u32>,
}

impl Memory {
    pub fn new(sector_size: u32, size: u64) -> Self {
        Self {
            sector_size,
            size,
            durable: BTreeMap::new(),
            fresh: BTreeMap::new(),
            stuck: BTreeSet::new(),
            unwritable: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            operations_left: None,
        }
    }

    /// The power goes; every sector that was not flushed meets its fate.
    pub fn power_cut(&mut self, mut fate: impl FnMut(u64) -> Fate) {
        for (sector, data) in std::mem::take(&mut self.fresh) {
            let half = data.len() / 2;
            let becomes = match fate(sector) {
                Fate::Kept => data,
                Fate::Lost => continue,
                Fate::Garbage => data.iter().map(|byte| byte ^ 0xA5).collect(),
                Fate::HalfZero => {
                    data[..half].iter().copied().chain(std::iter::repeat_n(0, half)).collect()
                }
            };
            self.durable.insert(sector, becomes);
        }
    }

    pub fn power_on(&mut self) {
        self.operations_left = None;
    }

    /// Changes the medium behind everybody's back.
    pub fn damage(&mut self, sector: u64, change: impl FnOnce(&mut [u8])) {
        let blank = vec![0; self.sector_size as usize];
        change(self.durable.entry(sector).or_insert(blank));
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

    fn sectors(&self, at: u64, length: usize) -> std::ops::Range<u64> {
        let unit = u64::from(self.sector_size);
        let end = at + length as u64;
        let aligned = at.is_multiple_of(unit) && end.is_multiple_of(unit);
        assert!(aligned && end <= self.size, "access at {at}, {length}");
        at / unit..end / unit
    }
}

impl Disk for Memory {
    type Error = Failure;

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Failure> {
        self.spend()?;
        let sectors = self.sectors(at, buf.len());
        if sectors.clone().any(|sector| self.unreadable.contains(&sector)) {
            return Err(Failure::Medium);
        }
        for (sector, part) in sectors.zip(buf.chunks_exact_mut(self.sector_size as usize)) {
            match self.fresh.get(&sector).or(self.durable.get(&sector)) {
                Some(data) => part.copy_from_slice(data),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Failure> {
        self.spend()?;
        let sectors = self.sectors(at, data.len());
        if sectors.clone().any(|sector| self.unwritable.contains(&sector)) {
            return Err(Failure::Medium);
        }
        for (sector, part) in sectors.zip(data.chunks_exact(self.sector_size as usize)) {
            if !self.stuck.contains(&sector) {
                self.fresh.insert(sector, part.to_vec());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.spend()?;
        let fresh = std::mem::take(&mut self.fresh);
        self.durable.extend(fresh);
        Ok(())
    }
}
