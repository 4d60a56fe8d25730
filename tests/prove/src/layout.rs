//! What a machine's disk looks like when it comes out of the factory.

use std::ops::Range;
use std::sync::Arc;

use partition_layout::boot_state::factory;
use partition_layout::disk::{Disk as _, Region};
use partition_layout::gpt::Table;
use partition_layout::guid::{self, Guid};
use partition_layout::layout::MIB;
use partition_layout::places::{self, IDENTITY_SIZE, PLACES, STRIDE, encode_identity};
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use strict_disk::StrictDisk;

use crate::image::Image;

/// The identity of every machine's disk.
pub const DISK_ID: [u8; 16] = [5; 16];

/// So many bytes stand for what is on the ESP.
const ESP_WRITTEN: u64 = 3 * 4096;

/// What is on the ESP, made with this release.
#[must_use]
pub fn esp_content(release: u64) -> Vec<u8> {
    let byte = release.to_le_bytes()[0] ^ 0xE5;
    (0..ESP_WRITTEN).map(|at| byte ^ (at / 512).to_le_bytes()[0]).collect()
}

/// What a disk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Size of the first partition in bytes: everything else lies behind it.
    pub front: u64,
    /// Size of each slot in bytes.
    pub slot: u64,
    /// Bytes of the disk behind the slots, as the image was made.
    pub rest: u64,
    /// Bytes that the real disk has more than its image.
    pub larger: u64,
}

impl Shape {
    /// A small disk, as large as its image.
    #[must_use]
    pub fn small(sector_size: u32) -> Self {
        Self { sector_size, front: MIB, slot: MIB, rest: 300 * MIB, larger: 0 }
    }
}

/// Where things truly are.
#[derive(Debug)]
pub struct Layout {
    /// The shape.
    pub shape: Shape,
    /// The part of the ESP that is written, in bytes.
    pub esp: Range<u64>,
    /// The record partition, in bytes.
    pub record: Range<u64>,
    /// The slots, in bytes.
    pub slots: [Range<u64>; 2],
    /// The table as it was made.
    pub table: Table,
}

impl Layout {
    /// A slot's bytes.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> Range<u64> {
        self.slots[slot.index()].clone()
    }

    /// The sector of a record place, in bytes.
    #[must_use]
    pub fn place(&self, place: u64) -> Range<u64> {
        let at = self.record.start + STRIDE * (place + 1);
        at..at + u64::from(self.shape.sector_size)
    }

    /// All that a record store may write.
    #[must_use]
    pub fn places(&self) -> Vec<Range<u64>> {
        (0..PLACES as u64).map(|place| self.place(place)).collect()
    }

    /// What a byte of the disk belongs to, in words.
    #[must_use]
    pub fn name(&self, at: u64) -> String {
        if let Some(place) = (0..PLACES as u64).find(|place| self.place(*place).contains(&at)) {
            return format!("record place {place}");
        }
        for slot in Slot::ALL {
            let range = self.slot(slot);
            if range.contains(&at) {
                return format!("slot {slot} at {}", at - range.start);
            }
        }
        if self.esp.contains(&at) {
            return format!("ESP at {}", at - self.esp.start);
        }
        if self.record.contains(&at) {
            return format!("record partition at {}", at - self.record.start);
        }
        format!("byte {at}")
    }
}

/// A disk of this shape with `image` in slot A, as the builder makes it.
///
/// # Errors
/// What cannot be made, in words.
pub fn fresh(shape: Shape, image: &Image) -> Result<(StrictDisk, Layout), String> {
    let made_for = shape.front + 18 * MIB + 2 * shape.slot + shape.rest;
    let mut disk = StrictDisk::new(shape.sector_size, made_for + shape.larger);
    let table = Table::new(Guid([1; 16]), shape.sector_size, made_for)
        .and_then(|t| t.append(guid::ESP, Guid([2; 16]), "bascule-esp", Some(shape.front)))
        .and_then(|t| t.append(guid::RECORD, Guid([3; 16]), "bascule-record", Some(16 * MIB)))
        .and_then(|t| t.append(guid::SLOT_A, Guid([4; 16]), "bascule-slot-a", Some(shape.slot)))
        .and_then(|t| t.append(guid::SLOT_B, Guid([6; 16]), "bascule-slot-b", Some(shape.slot)))
        .ok_or("no room for the partitions")?;
    let unit = u64::from(shape.sector_size);
    let range = |kind: Guid| {
        let entry = table.find(kind).ok_or("a partition is missing")?;
        Ok::<_, String>(entry.first * unit..(entry.last + 1) * unit)
    };
    let layout = Layout {
        shape,
        esp: range(guid::ESP)?.start..range(guid::ESP)?.start + ESP_WRITTEN,
        record: range(guid::RECORD)?,
        slots: [range(guid::SLOT_A)?, range(guid::SLOT_B)?],
        table: table.clone(),
    };
    // The image is written as far as its last partition; behind that lies what the disk held before.
    let end = layout.slots[1].end;
    disk.zero(0..end);
    let foreign: Vec<u8> = (0..8192_u32).map(|n| n.to_le_bytes()[0] ^ 0x3c).collect();
    disk.put(end, &foreign);
    disk.put(0, &table.protective_mbr());
    for write in table.writes() {
        disk.put(write.at, &write.data);
    }
    let mut identity = vec![0; shape.sector_size.max(512) as usize];
    identity[..IDENTITY_SIZE].copy_from_slice(&encode_identity(DISK_ID, shape.sector_size));
    disk.put(layout.record.start, &identity);
    disk.put(layout.esp.start, &esp_content(image.number));
    disk.put(layout.slots[0].start, &image.slot);
    let record = Record { generation: 0, ..factory(DISK_ID, image.facts()) };
    let length = layout.record.end - layout.record.start;
    let mut region = Region::new(&mut disk, layout.record.start, length).ok_or("no record")?;
    let loaded = places::load(&mut region).map_err(|error| format!("{error:?}"))?;
    places::store(&mut region, &loaded, &record).map_err(|error| format!("{error:?}"))?;
    disk.flush().map_err(|error| error.to_string())?;
    Ok((disk, layout))
}

/// A disk and its layout, to begin with.
pub type Fresh = (StrictDisk, Arc<Layout>);
