//! GUID partition tables (UEFI 2.10, chapter 5.3), for logical sectors of 512 and 4096 bytes.
//!
//! Reading takes the primary table and falls back on the backup at the disk's end; both are checked
//! in full (signature, both checksums, bounds) before a single entry is believed. A table with a
//! bad checksum or bounds outside the disk is never written to. We write tables only when a disk is
//! made, and when the state partition is made or grown: backup first, flush, then the primary, so
//! that a power cut leaves one whole table at any moment.

use crate::bytes::{array, put, u32_at, u64_at};
use crate::disk::Disk;
use crate::guid::Guid;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Entries in a table that we make.
pub const ENTRIES: u32 = 128;
const ENTRY_SIZE: usize = 128;
/// More entries than this are no table that we touch: 1 MiB would be foreign.
const ENTRIES_MAX: u32 = 1024;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_SIZE: usize = 92;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type.
    pub kind: Guid,
    /// Its own GUID.
    pub id: Guid,
    /// First sector.
    pub first: u64,
    /// Last sector, inclusive.
    pub last: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Name, at most 36 UTF-16 units.
    pub name: String,
}

impl Entry {
    /// Number of sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk's GUID.
    pub disk: Guid,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Number of sectors that the table was made for.
    pub sectors: u64,
    /// First sector that a partition may use.
    pub first_usable: u64,
    /// Last sector that a partition may use.
    pub last_usable: u64,
    /// Number of entries that the table has room for.
    pub capacity: u32,
    /// Used entries with their index.
    pub entries: Vec<(u32, Entry)>,
}

/// Which of the two tables was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// The one at the start.
    Primary,
    /// The one at the end.
    Backup,
}

/// Why no table was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// No signature.
    Absent,
    /// The header's or the entries' checksum differs.
    Checksum,
    /// Sizes or places outside the disk, overlapping, or not of this format.
    Bounds,
}

/// A table that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error<E> {
    /// The disk failed.
    Disk(E),
    /// Neither copy is whole: what is wrong with the primary and the backup.
    Invalid(Invalid, Invalid),
}

static CRC32: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);

fn crc32(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

/// What a header says, checked by itself.
#[derive(Debug)]
struct Header {
    mine: u64,
    other: u64,
    first_usable: u64,
    last_usable: u64,
    disk: Guid,
    entries_at: u64,
    count: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl Header {
    /// Whether both copies, each with so many sectors of entries, and all that a partition may use
    /// lie on a disk of `sectors` and apart from each other. Then such a table can be written, too.
    fn is_inside(&self, sectors: u64, entries: u64) -> bool {
        let end = self.mine.max(self.other);
        let before = |at: u64, limit: u64| at.checked_add(entries).is_some_and(|e| e <= limit);
        let own_entries = if self.mine == 1 {
            self.entries_at >= 2 && before(self.entries_at, self.first_usable)
        } else {
            self.entries_at > self.last_usable && before(self.entries_at, self.mine)
        };
        self.mine.min(self.other) == 1
            && end < sectors
            && self.first_usable <= self.last_usable
            && before(2, self.first_usable)
            && self.last_usable.checked_add(1).is_some_and(|at| before(at, end))
            && own_entries
    }
}

fn parse_header(sector: &[u8], at: u64) -> Result<Header, Invalid> {
    if !sector.starts_with(SIGNATURE) {
        return Err(Invalid::Absent);
    }
    let size = u32_at(sector, 12).ok_or(Invalid::Bounds)? as usize;
    if !(HEADER_SIZE..=512).contains(&size) {
        return Err(Invalid::Bounds);
    }
    let mut covered = sector.get(..size).ok_or(Invalid::Bounds)?.to_vec();
    put(&mut covered, 16, &[0; 4]);
    if u32_at(sector, 16) != Some(crc32(&covered)) {
        return Err(Invalid::Checksum);
    }
    let long = |at| u64_at(sector, at).ok_or(Invalid::Bounds);
    let short = |at| u32_at(sector, at).ok_or(Invalid::Bounds);
    let header = Header {
        mine: long(24)?,
        other: long(32)?,
        first_usable: long(40)?,
        last_usable: long(48)?,
        disk: Guid(array(sector, 56).ok_or(Invalid::Bounds)?),
        entries_at: long(72)?,
        count: short(80)?,
        entry_size: short(84)?,
        entries_crc: short(88)?,
    };
    let sane = header.mine == at
        && header.entry_size as usize == ENTRY_SIZE
        && (1..=ENTRIES_MAX).contains(&header.count);
    sane.then_some(header).ok_or(Invalid::Bounds)
}

fn parse_entry(bytes: &[u8]) -> Option<Entry> {
    let kind = Guid(array(bytes, 0)?);
    if kind == Guid::ZERO {
        return None;
    }
    let units: Vec<u16> = bytes
        .get(56..ENTRY_SIZE)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Some(Entry {
        kind,
        id: Guid(array(bytes, 16)?),
        first: u64_at(bytes, 32)?,
        last: u64_at(bytes, 40)?,
        attributes: u64_at(bytes, 48)?,
        name: String::from_utf16_lossy(&units),
    })
}

/// Reads the copy whose header is at sector `at`.
fn read_copy<D: Disk>(disk: &mut D, at: u64) -> Result<Result<Table, Invalid>, D::Error> {
    let sector_size = disk.sector_size();
    let unit = u64::from(sector_size.max(512));
    let sectors = disk.size() / unit;
    if sectors < 2 {
        return Ok(Err(Invalid::Bounds));
    }
    let mut sector = vec![0; sector_size.max(512) as usize];
    disk.read(at * unit, &mut sector)?;
    let header = match parse_header(&sector, at) {
        Ok(header) => header,
        Err(why) => return Ok(Err(why)),
    };
    let size = header.count as usize * ENTRY_SIZE;
    let padded = size.next_multiple_of(sector.len());
    if !header.is_inside(sectors, (padded / sector.len()) as u64) {
        return Ok(Err(Invalid::Bounds));
    }
    let mut bytes = vec![0; padded];
    disk.read(header.entries_at * unit, &mut bytes)?;
    bytes.truncate(size);
    if crc32(&bytes) != header.entries_crc {
        return Ok(Err(Invalid::Checksum));
    }
    Ok(believe(&header, &bytes, sector_size))
}

fn believe(header: &Header, bytes: &[u8], sector_size: u32) -> Result<Table, Invalid> {
    let mut entries = Vec::new();
    for (index, entry) in (0..).zip(bytes.chunks_exact(ENTRY_SIZE).map(parse_entry)) {
        let Some(entry) = entry else { continue };
        let inside = header.first_usable <= entry.first
            && entry.first <= entry.last
            && entry.last <= header.last_usable;
        if !inside {
            return Err(Invalid::Bounds);
        }
        entries.push((index, entry));
    }
    let mut order: Vec<&Entry> = entries.iter().map(|(_, entry)| entry).collect();
    order.sort_by_key(|entry| entry.first);
    if order.windows(2).any(|pair| pair[0].last >= pair[1].first) {
        return Err(Invalid::Bounds);
    }
    Ok(Table {
        disk: header.disk,
        sector_size,
        sectors: header.mine.max(header.other).saturating_add(1),
        first_usable: header.first_usable,
        last_usable: header.last_usable,
        capacity: header.count,
        entries,
    })
}

/// Reads the table of a whole disk: the primary, else the backup in the last sector.
///
/// # Errors
/// [`Error`]; the caller then writes nothing to this disk.
pub fn read<D: Disk>(disk: &mut D) -> Result<(Table, Copy), Error<D::Error>> {
    let primary = match read_copy(disk, 1) {
        Ok(Ok(table)) => return Ok((table, Copy::Primary)),
        Ok(Err(why)) => why,
        // An unreadable first copy is what the second is for.
        Err(_) => Invalid::Absent,
    };
    let last = (disk.size() / u64::from(disk.sector_size().max(512))).saturating_sub(1);
    match read_copy(disk, last).map_err(Error::Disk)? {
        Ok(table) => Ok((table, Copy::Backup)),
        Err(why) => Err(Error::Invalid(primary, why)),
    }
}

/// One write of a table, in bytes from the disk's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub at: u64,
    /// What; a multiple of the sector size.
    pub data: Vec<u8>,
}

impl Table {
    /// An empty table for a disk of so many bytes; `None` when it is too small for one.
    #[must_use]
    pub fn new(disk: Guid, sector_size: u32, size: u64) -> Option<Self> {
        let mut table = Self {
            disk,
            sector_size,
            sectors: 0,
            first_usable: 0,
            last_usable: 0,
            capacity: ENTRIES,
            entries: Vec::new(),
        };
        table.fit(size)?;
        Some(table)
    }

    fn entry_sectors(&self) -> u64 {
        (u64::from(self.capacity) * ENTRY_SIZE as u64)
            .div_ceil(u64::from(self.sector_size.max(512)))
    }

    /// The same partitions in a table that reaches to the end of a disk of so many bytes; `None`
    /// when they do not fit.
    #[must_use]
    pub fn fitted(&self, size: u64) -> Option<Self> {
        let mut table = self.clone();
        table.fit(size)?;
        table.entries.iter().all(|(_, entry)| entry.last <= table.last_usable).then_some(table)
    }

    /// Makes the table reach to the end of a disk of so many bytes.
    fn fit(&mut self, size: u64) -> Option<()> {
        let sectors = size / u64::from(self.sector_size.max(512));
        let entries = self.entry_sectors();
        self.sectors = sectors;
        self.first_usable = entries.checked_add(2)?;
        self.last_usable = sectors.checked_sub(entries)?.checked_sub(2)?;
        (self.first_usable <= self.last_usable).then_some(())
    }

    /// The only partition of this type; `None` when there is none, or more than one.
    #[must_use]
    pub fn find(&self, kind: Guid) -> Option<&Entry> {
        let mut found = self.entries.iter().map(|(_, entry)| entry).filter(|e| e.kind == kind);
        found.next().filter(|_| found.next().is_none())
    }

    /// Appends a partition of `size` bytes behind the last one, aligned; `None` when there is no
    /// room. A size of `None` takes all that is left.
    #[must_use]
    pub fn append(mut self, kind: Guid, id: Guid, name: &str, size: Option<u64>) -> Option<Self> {
        let unit = u64::from(self.sector_size.max(512));
        let align = crate::layout::ALIGNMENT / unit;
        let behind = self.entries.iter().map(|(_, e)| e.last.saturating_add(1)).max();
        let first = behind.unwrap_or(self.first_usable).checked_next_multiple_of(align)?;
        let end = (self.last_usable.checked_add(1)? / align).checked_mul(align)?;
        let last = match size {
            Some(bytes) => first.checked_add(bytes.div_ceil(unit))?.checked_sub(1)?,
            None => end.checked_sub(1)?,
        };
        if first > last || last > self.last_usable {
            return None;
        }
        let used = |index: &u32| self.entries.iter().any(|(i, _)| i == index);
        let index = (0..self.capacity).find(|index| !used(index))?;
        let name = name.chars().take(36).collect();
        self.entries.push((index, Entry { kind, id, first, last, attributes: 0, name }));
        Some(self)
    }

    /// The table for a disk that has grown to `size` bytes, with the partition of type `last`
    /// reaching to its end. `None` when nothing grows, or `last` is not the last partition.
    #[must_use]
    pub fn grown(&self, size: u64, last: Guid) -> Option<Self> {
        let mut table = self.clone();
        table.fit(size)?;
        let unit = u64::from(self.sector_size.max(512));
        let align = crate::layout::ALIGNMENT / unit;
        let end = (table.last_usable.checked_add(1)? / align).checked_mul(align)?.checked_sub(1)?;
        let (_, entry) = table.entries.iter_mut().max_by_key(|(_, entry)| entry.first)?;
        if entry.kind != last || end <= entry.last {
            return None;
        }
        entry.last = end;
        Some(table)
    }

    fn entry_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.capacity as usize * ENTRY_SIZE];
        for (index, entry) in &self.entries {
            let at = *index as usize * ENTRY_SIZE;
            put(&mut bytes, at, &entry.kind.0);
            put(&mut bytes, at + 16, &entry.id.0);
            put(&mut bytes, at + 32, &entry.first.to_le_bytes());
            put(&mut bytes, at + 40, &entry.last.to_le_bytes());
            put(&mut bytes, at + 48, &entry.attributes.to_le_bytes());
            for (position, unit) in entry.name.encode_utf16().take(36).enumerate() {
                put(&mut bytes, at + 56 + position * 2, &unit.to_le_bytes());
            }
        }
        bytes
    }

    fn header_bytes(&self, mine: u64, other: u64, entries_at: u64, entries_crc: u32) -> Vec<u8> {
        let mut sector = vec![0; self.sector_size.max(512) as usize];
        put(&mut sector, 0, SIGNATURE);
        put(&mut sector, 8, &0x0001_0000_u32.to_le_bytes());
        put(&mut sector, 12, &92_u32.to_le_bytes());
        for (at, value) in [
            (24, mine),
            (32, other),
            (40, self.first_usable),
            (48, self.last_usable),
            (72, entries_at),
        ] {
            put(&mut sector, at, &value.to_le_bytes());
        }
        put(&mut sector, 56, &self.disk.0);
        put(&mut sector, 80, &self.capacity.to_le_bytes());
        put(&mut sector, 84, &128_u32.to_le_bytes());
        put(&mut sector, 88, &entries_crc.to_le_bytes());
        let crc = crc32(&sector[..HEADER_SIZE]);
        put(&mut sector, 16, &crc.to_le_bytes());
        sector
    }

    /// What to write: the backup, then the primary; flush after each.
    #[must_use]
    pub fn writes(&self) -> [Write; 2] {
        let unit = u64::from(self.sector_size.max(512));
        let last = self.sectors.saturating_sub(1);
        let mut entries = self.entry_bytes();
        let crc = crc32(&entries);
        entries.resize(entries.len().next_multiple_of(self.sector_size.max(512) as usize), 0);
        let backup_entries = last.saturating_sub(self.entry_sectors());
        let mut backup = entries.clone();
        backup.extend(self.header_bytes(last, 1, backup_entries, crc));
        let mut primary = self.header_bytes(1, last, 2, crc);
        primary.extend(entries);
        [Write { at: backup_entries * unit, data: backup }, Write { at: unit, data: primary }]
    }

    /// Sector 0: the protective MBR, with `boot` bytes of nothing in front.
    #[must_use]
    pub fn protective_mbr(&self) -> Vec<u8> {
        let mut sector = vec![0; self.sector_size.max(512) as usize];
        let count = u32::try_from(self.sectors.saturating_sub(1)).unwrap_or(u32::MAX);
        put(&mut sector, 446, &[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]);
        put(&mut sector, 458, &count.to_le_bytes());
        put(&mut sector, 510, &[0x55, 0xAA]);
        sector
    }

    /// Writes the primary again, where the backup was believed, and flushes. Does not touch the
    /// backup: it is the only whole copy, and a power cut may spoil what is written, even with
    /// the same bytes.
    ///
    /// # Errors
    /// The disk's; the backup is whole all the same.
    pub fn mend<D: Disk>(&self, disk: &mut D) -> Result<(), D::Error> {
        let [_, primary] = self.writes();
        disk.write(primary.at, &primary.data)?;
        disk.flush()
    }

    /// Writes the backup, flushes, writes the primary, flushes. Only where the primary was believed.
    ///
    /// # Errors
    /// The disk's. A power cut or an error at any step leaves at least one whole table, if the
    /// primary was whole before.
    pub fn store<D: Disk>(&self, disk: &mut D) -> Result<(), D::Error> {
        for write in self.writes() {
            disk.write(write.at, &write.data)?;
            disk.flush()?;
        }
        Ok(())
    }
}
