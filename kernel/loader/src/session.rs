//! One boot: the rules, the disk they speak of, and the hands that start what they chose. What
//! fails is reported to the rules, and they are asked again, in the same boot.
//!
//! | step | a power cut here leaves |
//! |---|---|
//! | record of the choice stored | the record before, or the new one |
//! | kernel image read, checked, started | the new one: a trial's try is spent |

use core::fmt::Arguments;

use alloc::string::ToString as _;
use partition_layout::boot_variable::{BootVariable, Extent};
use partition_layout::disk::Disk;
use partition_layout::loader_plan::{Choice, LoaderPlan, Start};
use partition_layout::places::Loaded;
use partition_layout::record::{Cause, Record, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::Trailer;

use crate::slots::Slots;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a boot needs of the firmware.
pub trait Hands<D> {
    /// Memory for a kernel image.
    type Memory: AsMut<[u8]>;

    /// Memory of so many bytes; `None` when there is not so much.
    fn memory(&mut self, bytes: usize) -> Option<Self::Memory>;

    /// One line for whoever watches; best effort.
    fn say(&mut self, line: Arguments);

    /// Whether this may be started; what ended in an error of ours may not.
    fn may(&self, target: Target) -> bool;

    /// From here on an error is this target's.
    fn begins(&mut self, target: Target);

    /// Starts a kernel image that is what its trailer says. Under firmware a kernel that runs does
    /// not come back.
    ///
    /// # Errors
    /// Why it did not start.
    fn start(
        &mut self,
        slot: Slot,
        kernel: Self::Memory,
        trailer: &Trailer,
        boot: &Boot<'_, D>,
    ) -> Result<Runs, Cause>;

    /// Starts the recovery image; `None` when it did not start.
    fn recover(&mut self, boot: &Boot<'_, D>) -> Option<Runs>;
}

/// A kernel runs: there is nothing more to do here.
pub struct Runs;

/// What is being started, for the variable that tells os-init.
pub struct Boot<'a, D> {
    /// The disk.
    pub slots: &'a Slots<D>,
    plan: &'a LoaderPlan,
    facts: Facts,
}

struct Facts {
    target: Target,
    disk_id: [u8; 16],
    nonce: [u8; 16],
    generation: u64,
    record_written: bool,
    damaged: u8,
}

impl<D: Disk> Boot<'_, D> {
    /// What os-init is told: with these chipset watchdogs armed, read through a buffer there.
    pub fn variable(&self, watchdogs: u32, buffer: u64) -> BootVariable {
        BootVariable {
            loader: VERSION.to_string(),
            disk_id: self.facts.disk_id,
            nonce: self.facts.nonce,
            booted: self.facts.target,
            slot: match self.facts.target {
                Target::Slot(slot) => self.slots.extent(slot),
                Target::Recovery => Extent::default(),
            },
            sector_size: self.slots.disk.sector_size(),
            generation: self.facts.generation,
            record_written: self.facts.record_written,
            record: self.slots.record_extent(),
            watchdogs,
            reasons: self.plan.reasons().to_vec(),
            buffer,
            damaged: self.facts.damaged,
        }
    }
}

/// The newest record of what the places hold.
pub fn newest(loaded: Option<&Loaded>) -> Option<&Record> {
    loaded.and_then(|loaded| loaded.newest.as_ref()).map(|(_, record)| record)
}

/// One boot.
pub struct Session<'a, D, H> {
    slots: &'a mut Slots<D>,
    hands: &'a mut H,
    plan: LoaderPlan,
    disk_id: [u8; 16],
    damaged: u8,
    start: Start,
}

impl<'a, D: Disk, H: Hands<D>> Session<'a, D, H> {
    /// Begins with what the places hold; where that is no record, with the slots' trailers.
    pub fn new(
        slots: &'a mut Slots<D>,
        hands: &'a mut H,
        loaded: Option<&Loaded>,
        start: Start,
    ) -> Self {
        let disk_id = loaded.map_or([0; 16], |loaded| loaded.disk_id);
        let damaged = loaded.map_or(0, |loaded| loaded.damaged);
        if damaged > 0 {
            hands.say(format_args!("{damaged} places of the record are damaged"));
        }
        let plan = match newest(loaded) {
            Some(record) => {
                hands.say(format_args!(
                    "record {}: default {}, trial {}, {} tries",
                    record.generation,
                    record.default,
                    record.trial.map_or("none", Slot::word),
                    record.tries
                ));
                LoaderPlan::new(record, start)
            }
            None => {
                hands.say(format_args!("no valid record, the slots' trailers decide"));
                let facts = Slot::ALL.map(|slot| slots.facts(slot));
                LoaderPlan::rebuild(disk_id, facts, start)
            }
        };
        Self { slots, hands, plan, disk_id, damaged, start }
    }

    /// Tries everything there is, best first; `None` when nothing started.
    pub fn by_rules(&mut self) -> Option<Runs> {
        for slot in Slot::ALL {
            if !self.hands.may(Target::Slot(slot)) {
                self.plan.load_failed(slot, Cause::Unknown);
            }
        }
        loop {
            match self.plan.choose() {
                Choice::Start { slot, record, must_be_durable } => {
                    let stored = self.store(&record);
                    if stored.is_none() {
                        self.plan.not_writable();
                        if must_be_durable {
                            self.hands.say(format_args!(
                                "trial of slot {slot} left out: its try cannot be written"
                            ));
                            continue;
                        }
                    }
                    match self.start_slot(slot, &record, stored.as_ref()) {
                        Ok(runs) => return Some(runs),
                        Err(cause) => self.plan.load_failed(slot, cause),
                    }
                }
                Choice::Recovery { record } => {
                    if let Some(runs) = self.recover(&record) {
                        return Some(runs);
                    }
                }
                Choice::Firmware => return None,
            }
        }
    }

    /// A person chose: no try is taken and nothing is condemned. `None` when it did not start.
    pub fn by_hand(&mut self, target: Target) -> Option<Runs> {
        let record = self.plan.by_hand(target);
        match target {
            Target::Slot(slot) => {
                let stored = self.store(&record);
                let started = self.start_slot(slot, &record, stored.as_ref());
                if let Err(cause) = &started {
                    self.hands.say(format_args!("slot {slot} did not start: {}", cause.words()));
                }
                started.ok()
            }
            Target::Recovery => self.recover(&record),
        }
    }

    /// Starts the recovery image; `None` when it did not start.
    pub fn recover(&mut self, record: &Record) -> Option<Runs> {
        if !self.hands.may(Target::Recovery) {
            return None;
        }
        self.hands.begins(Target::Recovery);
        let stored = self.store(record);
        let facts = self.facts(Target::Recovery, record, stored.as_ref());
        self.hands.recover(&Boot { slots: self.slots, plan: &self.plan, facts })
    }

    fn facts(&self, target: Target, record: &Record, stored: Option<&Record>) -> Facts {
        Facts {
            target,
            disk_id: self.disk_id,
            nonce: self.start.nonce,
            generation: stored.unwrap_or(record).generation,
            record_written: stored.is_some(),
            damaged: self.damaged,
        }
    }

    fn store(&mut self, record: &Record) -> Option<Record> {
        match self.slots.store_record(record)? {
            Ok(stored) => Some(stored),
            Err(error) => {
                self.hands.say(format_args!("record not written, {error:?}"));
                None
            }
        }
    }

    /// Reads, checks, loads and starts a slot.
    fn start_slot(
        &mut self,
        slot: Slot,
        record: &Record,
        stored: Option<&Record>,
    ) -> Result<Runs, Cause> {
        self.hands.begins(Target::Slot(slot));
        let (kernel, trailer) = match self.slots.kernel(slot, |bytes| self.hands.memory(bytes)) {
            Ok(found) => found,
            Err(why) => {
                self.hands.say(format_args!("slot {slot}: {why}"));
                return Err(Cause::Unreadable);
            }
        };
        let facts = self.facts(Target::Slot(slot), record, stored);
        let boot = Boot { slots: self.slots, plan: &self.plan, facts };
        self.hands.start(slot, kernel, &trailer, &boot)
    }
}
