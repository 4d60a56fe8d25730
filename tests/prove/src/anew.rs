//! Making a machine's disk anew, over whatever it holds, as an installer does.

use partition_layout::boot_state::factory;
use partition_layout::disk::Disk as _;
use partition_layout::fresh::{self, Fresh};
use partition_layout::slot::Slot;
use updater::engine::slot::inspect_disk;

use crate::layout::{DISK_ID, esp_content};
use crate::machine::Shared;
use crate::world::World;

/// The type of an ESP in an old table.
const OLD_ESP: u8 = 0xEF;

impl World {
    /// Makes the disk anew, with a release in slot A.
    ///
    /// # Errors
    /// What fails, in words.
    pub fn make_anew(&mut self, number: u64) -> Result<(), String> {
        let image = self.library.borrow().image(number)?;
        let record = factory(DISK_ID, image.facts());
        let fresh = Fresh { table: &self.layout.table, disk_id: DISK_ID, record: &record };
        let (esp, slot) = (self.layout.esp.start, self.layout.slot(Slot::A).start);
        {
            let mut machine = self.shared.lock();
            machine.disk.allow_writes(None);
            machine.disk.forbid_nothing();
            machine.acknowledged = 0;
        }
        let fill = |disk: &mut Shared| {
            disk.write(esp, &esp_content(number)).map_err(|error| error.to_string())?;
            disk.write(slot, &image.slot).map_err(|error| error.to_string())
        };
        let check = |_: &mut Shared| {
            let inspected = inspect_disk(self.slot_part(Slot::A), "slot A", |_| {});
            let inspected = inspected.map_err(|failure| failure.message)?;
            inspected.is_whole().map(drop).map_err(str::to_owned)
        };
        let made = fresh::write(&mut self.shared.clone(), &fresh, fill, check);
        made.map_err(|error| format!("make the disk: {error}"))?;
        // From here on it must not be lost.
        self.shared.lock().acknowledged = 1;
        Ok(())
    }

    /// The release in slot A, as the record has it.
    #[must_use]
    pub fn recorded_release(&self) -> Option<u64> {
        self.record().map(|record| record.slot(Slot::A).release)
    }

    /// Whether firmware would look at the partition table: sector 0 says that there is one.
    #[must_use]
    pub fn firmware_believes(&self) -> bool {
        let mut sector = vec![0; self.layout.shape.sector_size as usize];
        let read = self.shared.clone().read(0, &mut sector);
        read.is_ok() && sector[450] == 0xEE && sector[510..512] == [0x55, 0xAA]
    }

    /// Whether firmware would look at an old table, one in sector 0 itself, for an ESP.
    #[must_use]
    pub fn firmware_believes_old(&self) -> bool {
        let mut sector = vec![0; self.layout.shape.sector_size as usize];
        let read = self.shared.clone().read(0, &mut sector);
        read.is_ok() && sector[450] == OLD_ESP && sector[510..512] == [0x55, 0xAA]
    }

    /// Puts an old table into sector 0, and nothing that is one where ours is.
    pub fn put_old_table(&mut self) {
        let unit = self.layout.shape.sector_size as usize;
        let mut machine = self.shared.lock();
        let last = machine.disk.true_size() / unit as u64 - 1;
        for sector in [0, 1, last] {
            let mut bytes = vec![0x77; unit];
            if sector == 0 {
                bytes[450] = OLD_ESP;
                bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            }
            machine.disk.put(sector * unit as u64, &bytes);
        }
    }

    /// The release whose ESP is on the disk, whole.
    #[must_use]
    pub fn esp_release(&self) -> Option<u64> {
        let mut there = vec![0; esp_content(0).len()];
        self.shared.clone().read(self.layout.esp.start, &mut there).ok()?;
        (1..=20).find(|release| esp_content(*release) == there)
    }
}
