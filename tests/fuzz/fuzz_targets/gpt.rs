//! Partition tables: a disk made of the input, with the checksums of both copies put right where
//! the first byte says so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partition_layout::bytes::{put, u32_at, u64_at};
use partition_layout::disk::Disk;
use partition_layout::gpt::{self, Copy};
use partition_layout::guid;

/// A small disk in memory.
struct Memory {
    bytes: Vec<u8>,
    sector_size: u32,
}

impl Disk for Memory {
    type Error = ();

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), ()> {
        let at = usize::try_from(at).map_err(drop)?;
        let end = at.checked_add(buf.len()).ok_or(())?;
        buf.copy_from_slice(self.bytes.get(at..end).ok_or(())?);
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), ()> {
        let at = usize::try_from(at).map_err(drop)?;
        let end = at.checked_add(data.len()).ok_or(())?;
        self.bytes.get_mut(at..end).ok_or(())?.copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ()> {
        Ok(())
    }
}

/// CRC-32 as in the table, bit by bit: an implementation of its own.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xEDB8_8320 }
        })
    })
}

/// Puts signature, size and both checksums of the header at byte `at` right.
fn mend(bytes: &mut [u8], at: usize, unit: usize) {
    let Some(header) = bytes.get(at..at + 92).map(<[u8]>::to_vec) else { return };
    put(bytes, at, b"EFI PART");
    put(bytes, at + 12, &92_u32.to_le_bytes());
    let lba = usize::try_from(u64_at(&header, 72).unwrap_or_default()).unwrap_or_default();
    let count = u32_at(&header, 80).unwrap_or_default() as usize;
    let entries = lba
        .checked_mul(unit)
        .zip(count.checked_mul(128))
        .and_then(|(start, size)| bytes.get(start..start.checked_add(size)?));
    let crc = entries.map(crc32).unwrap_or_default();
    put(bytes, at + 88, &crc.to_le_bytes());
    put(bytes, at + 16, &[0; 4]);
    let crc = crc32(&bytes[at..at + 92]);
    put(bytes, at + 16, &crc.to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, data)) = data.split_first() else { return };
    let sector_size = if flags & 1 == 0 { 512 } else { 4096 };
    let unit = sector_size as usize;
    let mut bytes = data.to_vec();
    bytes.resize(bytes.len().next_multiple_of(unit), 0);
    if flags & 2 != 0 && bytes.len() >= 3 * unit {
        mend(&mut bytes, unit, unit);
        let last = bytes.len() - unit;
        mend(&mut bytes, last, unit);
    }
    let mut disk = Memory { bytes, sector_size };
    let Ok((table, copy)) = gpt::read(&mut disk) else { return };
    let sectors = disk.size() / u64::from(sector_size);
    for (_, entry) in &table.entries {
        assert!(entry.first <= entry.last && entry.last < sectors, "outside the disk");
        let _ = table.find(entry.kind);
    }
    let _ = table.grown(disk.size() * 4, guid::STATE);
    let _ = table.protective_mbr();
    if copy == Copy::Primary && table.sectors == sectors {
        // What is written for a table that was believed is never outside the disk.
        for write in table.writes() {
            assert!(write.at + write.data.len() as u64 <= disk.size(), "write outside the disk");
        }
    }
});
