//! Finds the disk that booted: by the identity and the nonce that the loader wrote into its record,
//! never by a name or a label. Two cloned disks in one machine are normal.

use kernel_abi::FileDisk;
use partition_layout::boot_variable::BootVariable;
use partition_layout::disk::{Disk, Region};
use partition_layout::gpt::{self, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::places;
use partition_layout::record::Record;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long disks may take to appear.
const APPEAR_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// The booted disk.
#[derive(Debug)]
pub struct BootedDisk {
    /// Its name below `/dev`, such as `vda`.
    pub name: String,
    /// Its partition table.
    pub table: Table,
    /// The newest record.
    pub record: Record,
}

impl BootedDisk {
    /// Where the only partition of a type lies: offset and size in bytes.
    #[must_use]
    pub fn extent(&self, kind: Guid) -> Option<(u64, u64)> {
        let entry = self.table.find(kind)?;
        let sector = u64::from(self.table.sector_size);
        Some((entry.first.checked_mul(sector)?, entry.sectors().checked_mul(sector)?))
    }

    /// The kernel's device of the partition at this offset: found by where it starts, not by a
    /// number in a name.
    #[must_use]
    pub fn partition_device(&self, offset: u64) -> Option<String> {
        partition_device(&self.name, offset)
    }
}

/// The kernel's device of the partition of a disk that starts at `offset` bytes.
#[must_use]
pub fn partition_device(disk: &str, offset: u64) -> Option<String> {
    let wanted = (offset / 512).to_string();
    for entry in fs::read_dir(format!("/sys/block/{disk}")).ok()?.flatten() {
        let start = fs::read_to_string(entry.path().join("start")).unwrap_or_default();
        if start.trim() == wanted {
            return Some(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    None
}

/// Waits for the booted disk; `pet` is called meanwhile.
///
/// # Errors
/// A message, when it does not appear in time.
pub fn wait(variable: &BootVariable, pet: &mut dyn FnMut()) -> Result<BootedDisk, String> {
    let begun = Instant::now();
    loop {
        let disks = whole_disks();
        if let Some(found) = disks.iter().find_map(|name| examine(name, variable)) {
            return Ok(found);
        }
        if begun.elapsed() > APPEAR_MAX {
            return Err(format!(
                "find the disk that booted: none of [{}] has its identity and this boot's nonce",
                disks.join(" ")
            ));
        }
        pet();
        sleep(PAUSE);
    }
}

fn whole_disks() -> Vec<String> {
    let not_a_disk =
        |name: &str| ["loop", "ram", "dm-", "zram", "sr", "fd"].iter().any(|p| name.starts_with(p));
    let mut names: Vec<String> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !not_a_disk(name))
        .collect();
    names.sort();
    names
}

fn examine(name: &str, variable: &BootVariable) -> Option<BootedDisk> {
    let disk = FileDisk::open(Path::new(&format!("/dev/{name}")), false).ok()?;
    let (table, record) = recognise(disk, variable)?;
    Some(BootedDisk { name: name.into(), table, record })
}

/// The partition table and the newest record of `disk`; `None` when it is not the one that booted.
pub fn recognise<D: Disk>(mut disk: D, variable: &BootVariable) -> Option<(Table, Record)> {
    let (table, _) = gpt::read(&mut disk).ok()?;
    let sector = u64::from(disk.sector_size());
    let entry = table.find(guid::RECORD)?;
    let (start, size) = (entry.first.checked_mul(sector)?, entry.sectors().checked_mul(sector)?);
    let loaded = places::load(&mut Region::new(disk, start, size)?).ok()?;
    if loaded.disk_id != variable.disk_id {
        return None;
    }
    // Where the loader could not write, the nonce is not on the disk: the generation must do, and
    // where not a single place can be read, the identity alone. Such a machine is up and degraded.
    let (this_boot, record) = match (loaded.newest, variable.record_written) {
        (Some((_, record)), true) => (record.nonce == variable.nonce, record),
        (Some((_, record)), false) => (record.generation <= variable.generation, record),
        (None, written) => (!written, Record::fresh(variable.disk_id)),
    };
    this_boot.then_some((table, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use partition_layout::boot_variable::Extent;
    use partition_layout::layout::MIB;
    use partition_layout::record::Target;
    use partition_layout::slot::Slot;
    use strict_disk::StrictDisk;

    const DISK_ID: [u8; 16] = [5; 16];
    const NONCE: [u8; 16] = [7; 16];

    /// A disk whose newest record is of a boot with this nonce.
    fn disk(disk_id: [u8; 16], nonce: [u8; 16]) -> StrictDisk {
        let mut disk = StrictDisk::zeroed(512, 64 * MIB);
        let table = Table::new(Guid([1; 16]), 512, 64 * MIB)
            .and_then(|t| t.append(guid::RECORD, Guid([2; 16]), "bascule-record", Some(16 * MIB)))
            .unwrap();
        table.store(&mut disk).unwrap();
        let (start, size) = (MIB, 16 * MIB);
        let mut region = Region::new(&mut disk, start, size).unwrap();
        region.write(0, &places::encode_identity(disk_id, 512)).unwrap();
        let loaded = places::load(&mut region).unwrap();
        let record = Record { nonce, ..Record::fresh(disk_id) };
        assert_eq!(places::store(&mut region, &loaded, &record).unwrap().generation, 2);
        disk
    }

    fn variable(record_written: bool, generation: u64) -> BootVariable {
        BootVariable {
            loader: "0.1.0".into(),
            disk_id: DISK_ID,
            nonce: NONCE,
            booted: Target::Slot(Slot::A),
            slot: Extent::default(),
            sector_size: 512,
            generation,
            record_written,
            record: Extent::default(),
            watchdogs: 0,
            reasons: Vec::new(),
            buffer: 0,
            damaged: 0,
        }
    }

    #[test]
    fn of_cloned_disks_the_one_that_booted_is_known_by_its_nonce() {
        let written = variable(true, 2);
        let (table, record) = recognise(disk(DISK_ID, NONCE), &written).unwrap();
        assert_eq!((record.nonce, record.disk_id), (NONCE, DISK_ID));
        assert!(table.find(guid::RECORD).is_some());
        assert!(recognise(disk(DISK_ID, [8; 16]), &written).is_none(), "its clone");
        assert!(recognise(disk([6; 16], NONCE), &written).is_none(), "another disk");
        assert!(recognise(StrictDisk::zeroed(512, 64 * MIB), &written).is_none());
    }

    #[test]
    fn where_the_loader_could_not_write_no_later_record_is_this_boots() {
        assert!(recognise(disk(DISK_ID, [8; 16]), &variable(false, 2)).is_some());
        assert!(recognise(disk(DISK_ID, [8; 16]), &variable(false, 1)).is_none());
        assert!(recognise(disk([6; 16], [8; 16]), &variable(false, 2)).is_none());
    }
}
