//! What happens, in order: find the own disk, then what [`loader::session`] says; here are the hands
//! that load and start.

use core::fmt::Arguments;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};

use alloc::vec::Vec;
use loader::device_path;
use loader::session::{Boot, Hands, Runs, Session, newest};
use loader::slots::{self, Slots};
use partition_layout::disk::Disk as _;
use partition_layout::loader_plan::Start;
use partition_layout::record::{Cause, Record, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::{Trailer, WATCHDOG_I6300ESB, WATCHDOG_ITCO};
use partition_layout::{gpt, guid};
use uefi::runtime::{self, ResetType};
use uefi::{CStr16, Handle, Status, cstr16};

use super::block::WholeDisk;
use super::console::{self, say};
use super::hand::{self, Wish};
use super::image::Loaded;
use super::memory::Pages;
use super::own_disk::OwnDisk;
use super::{chance, chipset, esp, own_disk, strings, watchdog};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const RECOVERY: &CStr16 = cstr16!("\\EFI\\bascule\\recovery.efi");
/// So many panics in one boot end in a reset; each slot and recovery may have had one.
const PANICS_MAX: u8 = 4;
/// Time to read the screen before a reset, in milliseconds.
const READ_MS: usize = 5000;

/// What is being started, for a panic to know: 0 nothing yet, else a bit of [`FAILED`].
static CURRENT: AtomicU8 = AtomicU8::new(0);
/// What a panic has ended in this boot: [`bit`] of each.
static FAILED: AtomicU8 = AtomicU8::new(0);
static PANICS: AtomicU8 = AtomicU8::new(0);

/// The loader. It returns only when nothing could be started; the firmware then goes on with its
/// next boot entry.
pub fn run() -> Status {
    watchdog::arm(watchdog::LOADING_S);
    say!("loader {VERSION}");
    let wish = hand::wish();
    attempt(wish);
    watchdog::disarm();
    say!("nothing could be started, back to the firmware");
    Status::NOT_FOUND
}

/// A panic is an error of ours: whatever was being started is left out, the rest is tried.
pub fn after_panic(info: &PanicInfo) -> ! {
    let place = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
    say!("error in the loader at {}:{}", place.0, place.1);
    if PANICS.fetch_add(1, Ordering::Relaxed) < PANICS_MAX {
        let current = CURRENT.swap(0, Ordering::Relaxed);
        // With nothing being started yet, the reading of record or table failed: leave the slots.
        let failed = if current == 0 {
            bit(Target::Slot(Slot::A)) | bit(Target::Slot(Slot::B))
        } else {
            current
        };
        FAILED.fetch_or(failed, Ordering::Relaxed);
        attempt(Wish::None);
    }
    say!("reset");
    console::pause_ms(READ_MS);
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}

fn bit(target: Target) -> u8 {
    match target {
        Target::Slot(Slot::A) => 1,
        Target::Slot(Slot::B) => 2,
        Target::Recovery => 4,
    }
}

fn may(target: Target) -> bool {
    FAILED.load(Ordering::Relaxed) & bit(target) == 0
}

/// Tries everything there is, best first. Returns when nothing started.
fn attempt(wish: Wish) {
    let OwnDisk { volume, path, disk } = match own_disk::find() {
        Ok(own) => own,
        Err(status) => {
            say!("cannot find the disk the loader came from, {status:?}");
            return;
        }
    };
    let (buffer, bytes) = disk.transfer();
    say!("reads through {bytes} bytes at {buffer:#x}, sectors of {}", disk.sector_size());
    let mut firmware = Firmware { volume, path };
    let slots_failed = bit(Target::Slot(Slot::A)) | bit(Target::Slot(Slot::B));
    let panicked = FAILED.load(Ordering::Relaxed) & slots_failed == slots_failed;
    if panicked {
        // Not even the table is read again: recovery needs none.
        let mut slots = Slots::without_table(disk);
        let mut session = Session::new(&mut slots, &mut firmware, None, begin(None));
        session.recover(&Record::fresh([0; 16]));
        return;
    }
    let (mut slots, found) = Slots::read(disk);
    match found {
        Ok(gpt::Copy::Primary) => {}
        Ok(gpt::Copy::Backup) => say!("primary partition table damaged, the backup is used"),
        Err(error) => say!("no partition table, {error:?}"),
    }
    let loaded = match slots.load_record() {
        Some(Ok(loaded)) => Some(loaded),
        Some(Err(error)) => {
            say!("no record, {error:?}");
            None
        }
        None => None,
    };
    let start = begin(newest(loaded.as_ref()));
    let mut session = Session::new(&mut slots, &mut firmware, loaded.as_ref(), start);
    match wish {
        Wish::None => {}
        Wish::Firmware => return,
        Wish::Start(target) => {
            session.by_hand(target);
        }
    }
    session.by_rules();
}

fn begin(newest: Option<&Record>) -> Start {
    let seed = newest.map_or([0; 512], Record::encode);
    Start { nonce: chance::nonce(&seed), rtc_s: chance::seconds().unwrap_or(0) }
}

/// What a boot needs of the firmware.
struct Firmware {
    /// The partition our file lay on.
    volume: Handle,
    /// The disk's device path.
    path: Vec<u8>,
}

impl Hands<WholeDisk> for Firmware {
    type Memory = Pages;

    fn memory(&mut self, bytes: usize) -> Option<Pages> {
        Pages::anywhere(bytes)
    }

    fn say(&mut self, line: Arguments) {
        console::log(line);
    }

    fn may(&self, target: Target) -> bool {
        may(target)
    }

    fn begins(&mut self, target: Target) {
        CURRENT.store(bit(target), Ordering::Relaxed);
    }

    fn start(
        &mut self,
        slot: Slot,
        kernel: Pages,
        trailer: &Trailer,
        boot: &Boot<'_, WholeDisk>,
    ) -> Result<Runs, Cause> {
        say!(
            "slot {slot}: release {}, kernel image of {} bytes at {:#x}",
            trailer.release,
            trailer.uki_size,
            kernel.address()
        );
        let name = alloc::format!("bascule-{}-{}.efi", slot.word(), trailer.version);
        let partition = boot.slots.partition(slots::kind(slot));
        let path = device_path::file_in(&self.path, partition.as_ref(), &name);
        let loaded = match Loaded::from_memory(kernel.bytes(), &path) {
            Ok(loaded) => loaded,
            Err(status) => {
                say!("slot {slot}: kernel image refused, {status:?}");
                return Err(Cause::Refused);
            }
        };
        // The firmware has its own copy; the kernel may need the memory.
        drop(kernel);
        let status = launch(loaded, boot, trailer.watchdogs);
        say!("slot {slot}: kernel image returned, {status:?}");
        Err(Cause::Returned)
    }

    fn recover(&mut self, boot: &Boot<'_, WholeDisk>) -> Option<Runs> {
        let bytes = match esp::read(self.volume, RECOVERY) {
            Ok(bytes) => bytes,
            Err(status) => {
                say!("recovery: cannot read {RECOVERY}, {status:?}");
                return None;
            }
        };
        say!("recovery: image of {} bytes", bytes.bytes().len());
        // In the record partition, which never has a file system, so that the stub finds nothing
        // of the ESP beside it.
        let partition = boot.slots.partition(guid::RECORD);
        let path = device_path::file_in(&self.path, partition.as_ref(), "bascule-recovery.efi");
        let loaded = match Loaded::from_memory(bytes.bytes(), &path) {
            Ok(loaded) => loaded,
            Err(status) => {
                say!("recovery: image refused, {status:?}");
                return None;
            }
        };
        drop(bytes);
        let status = launch(loaded, boot, 0);
        say!("recovery: image returned, {status:?}");
        None
    }
}

/// The last steps before a kernel: watchdogs, strings, variable, start.
fn launch(loaded: Loaded, boot: &Boot<'_, WholeDisk>, drivers: u32) -> Status {
    let blanked = strings::blank();
    if blanked > 0 {
        say!("{blanked} SMBIOS strings blanked");
    }
    let watchdogs = arm(drivers);
    let content = boot.variable(watchdogs, boot.slots.disk.transfer().0 as u64);
    if let Err(status) = super::variable::publish(&content) {
        say!("cannot publish what was started, {status:?}");
    }
    say!("starting, watchdog {} s, chipset watchdogs {watchdogs:#x}", watchdog::STARTING_S);
    watchdog::arm(watchdog::STARTING_S);
    let status = loaded.start();
    watchdog::arm(watchdog::LOADING_S);
    disarm(watchdogs);
    status
}

/// Arms those chipset watchdogs that the kernel has the drivers for. Which ones run.
fn arm(drivers: u32) -> u32 {
    let mut running = 0;
    if drivers & WATCHDOG_I6300ESB != 0 && chipset::arm_i6300esb() {
        running |= WATCHDOG_I6300ESB;
    }
    if drivers & WATCHDOG_ITCO != 0 && chipset::arm_tco() {
        running |= WATCHDOG_ITCO;
    }
    running
}

/// A kernel image that returned is not guarded any more: the next one may lack the driver.
fn disarm(running: u32) {
    if running & WATCHDOG_I6300ESB != 0 {
        chipset::disarm_i6300esb();
    }
    if running & WATCHDOG_ITCO != 0 {
        chipset::disarm_tco();
    }
}
