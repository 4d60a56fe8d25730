//! What happens, in order: find the own disk, ask the slot rules, make the choice durable, load,
//! start; what fails is reported to the rules, and they are asked again, in the same boot.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};

use alloc::string::ToString as _;
use partition_layout::boot_variable::BootVariable;
use partition_layout::disk::Disk as _;
use partition_layout::loader_plan::{Choice, LoaderPlan, Start};
use partition_layout::record::{Cause, Record, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::{WATCHDOG_I6300ESB, WATCHDOG_ITCO};
use uefi::runtime::{self, ResetType};
use uefi::{CStr16, Status, cstr16};

use super::console::{self, say};
use super::hand::{self, Wish};
use super::image::Loaded;
use super::slots::{Kernel, Slots};
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
    let own = match own_disk::find() {
        Ok(own) => own,
        Err(status) => {
            say!("cannot find the disk the loader came from, {status:?}");
            return;
        }
    };
    let (buffer, bytes) = own.disk.transfer();
    say!("reads through {bytes} bytes at {buffer:#x}, sectors of {}", own.disk.sector_size());
    let slots_failed = bit(Target::Slot(Slot::A)) | bit(Target::Slot(Slot::B));
    let panicked = FAILED.load(Ordering::Relaxed) & slots_failed == slots_failed;
    if panicked {
        // Not even the table is read again: recovery needs none.
        let mut slots = Slots::without_table(own);
        return Session::new(&mut slots, None).recover(&Record::fresh([0; 16]));
    }
    let mut slots = Slots::read(own);
    let loaded = slots.load_record();
    let mut session = Session::new(&mut slots, loaded);
    match wish {
        Wish::None => {}
        Wish::Firmware => return,
        Wish::Start(target) => session.by_hand(target),
    }
    session.by_rules();
}

/// One boot: the rules, and the disk they speak of.
struct Session<'a> {
    slots: &'a mut Slots,
    plan: LoaderPlan,
    disk_id: [u8; 16],
    start: Start,
}

impl<'a> Session<'a> {
    fn new(slots: &'a mut Slots, loaded: Option<partition_layout::places::Loaded>) -> Self {
        let disk_id = loaded.as_ref().map_or([0; 16], |loaded| loaded.disk_id);
        let newest = loaded.and_then(|loaded| loaded.newest).map(|(_, record)| record);
        let seed = newest.as_ref().map_or([0; 512], Record::encode);
        let start = Start { nonce: chance::nonce(&seed), rtc_s: chance::seconds().unwrap_or(0) };
        let plan = match newest {
            Some(record) => {
                say!(
                    "record {}: default {}, trial {}, {} tries",
                    record.generation,
                    record.default,
                    record.trial.map_or("none", Slot::word),
                    record.tries
                );
                LoaderPlan::new(&record, start)
            }
            None => {
                say!("no valid record, the slots' trailers decide");
                let facts = Slot::ALL.map(|slot| slots.facts(slot));
                LoaderPlan::rebuild(disk_id, facts, start)
            }
        };
        Self { slots, plan, disk_id, start }
    }

    fn by_rules(&mut self) {
        for slot in Slot::ALL {
            if !may(Target::Slot(slot)) {
                self.plan.load_failed(slot, Cause::Unknown);
            }
        }
        loop {
            match self.plan.choose() {
                Choice::Start { slot, record, must_be_durable } => {
                    let stored = self.slots.store_record(&record);
                    if stored.is_none() {
                        self.plan.not_writable();
                        if must_be_durable {
                            say!("trial of slot {slot} left out: its try cannot be written");
                            continue;
                        }
                    }
                    let cause = self.start_slot(slot, &record, stored.as_ref());
                    self.plan.load_failed(slot, cause);
                }
                Choice::Recovery { record } => self.recover(&record),
                Choice::Firmware => return,
            }
        }
    }

    /// A person chose: no try is taken and nothing is condemned.
    fn by_hand(&mut self, target: Target) {
        let record = self.plan.by_hand(target);
        match target {
            Target::Slot(slot) => {
                let stored = self.slots.store_record(&record);
                let cause = self.start_slot(slot, &record, stored.as_ref());
                say!("slot {slot} did not start: {}", cause.words());
            }
            Target::Recovery => self.recover(&record),
        }
    }

    /// Reads, checks, loads and starts a slot. Returns why it did not.
    fn start_slot(&mut self, slot: Slot, record: &Record, stored: Option<&Record>) -> Cause {
        CURRENT.store(bit(Target::Slot(slot)), Ordering::Relaxed);
        let Kernel { bytes, trailer } = match self.slots.kernel(slot) {
            Ok(kernel) => kernel,
            Err(why) => {
                say!("slot {slot}: {why}");
                return Cause::Unreadable;
            }
        };
        say!(
            "slot {slot}: release {}, kernel image of {} bytes at {:#x}",
            trailer.release,
            trailer.uki_size,
            bytes.address()
        );
        let loaded =
            match Loaded::from_memory(bytes.bytes(), &self.slots.kernel_path(slot, &trailer)) {
                Ok(loaded) => loaded,
                Err(status) => {
                    say!("slot {slot}: kernel image refused, {status:?}");
                    return Cause::Refused;
                }
            };
        // The firmware has its own copy; the kernel may need the memory.
        drop(bytes);
        let target = Target::Slot(slot);
        let status = self.launch(target, loaded, record, stored, trailer.watchdogs);
        say!("slot {slot}: kernel image returned, {status:?}");
        Cause::Returned
    }

    /// Starts the recovery image of the ESP. Returns when it did not start.
    fn recover(&mut self, record: &Record) {
        if !may(Target::Recovery) {
            return;
        }
        CURRENT.store(bit(Target::Recovery), Ordering::Relaxed);
        let stored = self.slots.store_record(record);
        let bytes = match esp::read(self.slots.own.volume, RECOVERY) {
            Ok(bytes) => bytes,
            Err(status) => return say!("recovery: cannot read {RECOVERY}, {status:?}"),
        };
        say!("recovery: image of {} bytes", bytes.bytes().len());
        let loaded = match Loaded::from_memory(bytes.bytes(), &self.slots.recovery_path()) {
            Ok(loaded) => loaded,
            Err(status) => return say!("recovery: image refused, {status:?}"),
        };
        drop(bytes);
        let status = self.launch(Target::Recovery, loaded, record, stored.as_ref(), 0);
        say!("recovery: image returned, {status:?}");
    }

    /// The last steps before a kernel: watchdogs, strings, variable, start.
    fn launch(
        &mut self,
        target: Target,
        loaded: Loaded,
        record: &Record,
        stored: Option<&Record>,
        drivers: u32,
    ) -> Status {
        let blanked = strings::blank();
        if blanked > 0 {
            say!("{blanked} SMBIOS strings blanked");
        }
        let watchdogs = arm(drivers);
        let content = self.variable(target, record, stored, watchdogs);
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

    fn variable(
        &self,
        target: Target,
        record: &Record,
        stored: Option<&Record>,
        watchdogs: u32,
    ) -> BootVariable {
        BootVariable {
            loader: VERSION.to_string(),
            disk_id: self.disk_id,
            nonce: self.start.nonce,
            booted: target,
            slot: match target {
                Target::Slot(slot) => self.slots.extent(slot),
                Target::Recovery => partition_layout::boot_variable::Extent::default(),
            },
            sector_size: self.slots.own.disk.sector_size(),
            generation: stored.unwrap_or(record).generation,
            record_written: stored.is_some(),
            record: self.slots.record_extent(),
            watchdogs,
            reasons: self.plan.reasons().to_vec(),
            buffer: self.slots.own.disk.transfer().0 as u64,
        }
    }
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
