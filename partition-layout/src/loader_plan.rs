//! What the loader starts: the slot rules before any event.
//!
//! Pure, like [`crate::boot_state`], and the only place where the loader decides anything.
//!
//! # Invariants
//! - A trial is offered only with its try already taken off the record to store.
//! - A plan ends: each answer takes a slot or recovery out of it, then comes the firmware.
//! - No slot is given up: faulty ones are tried again at every start, best first.
//!
//! # Assumptions
//! 1. A slot that is well reaches its gate within [`OVERDUE_S`], and os-init within
//!    [`OVERDUE_LOADER_S`].
//! 2. Three starts in a row that are cut before the gate, each followed by an outage longer than
//!    that and shorter than [`ABSURD_S`], are rarer than a hang: they cannot be told apart.
//! 3. A proven slot that resets within seconds looks like a row of power cuts, and is started again.

use crate::boot_state::{ImageFacts, OVERDUE_MAX, sealed};
use crate::record::{Cause, Content, Fault, LastStart, Record, SlotRecord, Stage, Target};
use crate::slot::Slot;
use alloc::vec::Vec;

/// A start of which os-init never reported and that lasted this many seconds was overdue: just below
/// the time that the loader gives a kernel on a chipset's watchdog, far above a start that is well.
pub const OVERDUE_LOADER_S: u64 = 110;
/// A start that os-init reported, and that neither confirmed nor stopped within this many seconds,
/// was overdue: longer than the gate's deadline and the slowest boot.
pub const OVERDUE_S: u64 = 600;
/// Differences of the clock above this are absurd: the machine was off, or the clock jumped.
pub const ABSURD_S: u64 = 24 * 3600;

/// What the loader knows of this start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Random; tells os-init which disk booted.
    pub nonce: [u8; 16],
    /// The firmware's clock in seconds; 0 when it has none.
    pub rtc_s: u64,
}

/// What the loader starts next.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A slot.
    Start {
        /// Which.
        slot: Slot,
        /// The record for this start.
        record: Record,
        /// Whether it must not start unless `record` is durable: it is a trial, and its try would
        /// be free.
        must_be_durable: bool,
    },
    /// The recovery image; `record` is worth storing but nothing waits for it.
    Recovery {
        /// The record for this start.
        record: Record,
    },
    /// Nothing is left: back to the firmware.
    Firmware,
}

/// Why the loader chose as it did; published to os-init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A slot's trial had no tries left.
    TrialSpent(Slot),
    /// A slot could not be loaded.
    LoadFailed(Slot, Cause),
    /// The record could not be written, so the trial was left out.
    NotWritable,
    /// All places were damaged; the slots' trailers decided.
    Rebuilt,
    /// A slot that was never proven, or had a fault already, did not come up.
    UnprovenEnded(Slot),
    /// A proven slot was overdue [`OVERDUE_MAX`] times in a row.
    Overdue(Slot),
    /// A person chose at the console.
    ByHand,
}

/// The loader's procedure: ask [`LoaderPlan::choose`], make the record durable, load, start; report
/// what fails and ask again, in the same boot.
#[derive(Debug, Clone)]
pub struct LoaderPlan {
    record: Record,
    start: Start,
    left: [bool; 2],
    recovery_left: bool,
    writable: bool,
    try_taken: bool,
    reasons: Vec<Reason>,
}

impl LoaderPlan {
    /// Begins with the record of this disk.
    #[must_use]
    pub fn new(record: &Record, start: Start) -> Self {
        let mut plan = Self {
            record: record.clone(),
            start,
            left: [true; 2],
            recovery_left: true,
            writable: true,
            try_taken: false,
            reasons: Vec::new(),
        };
        plan.judge_last_start();
        plan
    }

    /// Begins where every place of the record is damaged: the slots' trailers decide.
    #[must_use]
    pub fn rebuild(disk_id: [u8; 16], trailers: [Option<ImageFacts>; 2], start: Start) -> Self {
        let mut plan = Self::new(&rebuild(disk_id, trailers), start);
        plan.reasons.push(Reason::Rebuilt);
        plan
    }

    /// Why it chose as it did, so far.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// What to start next.
    pub fn choose(&mut self) -> Choice {
        if self.record.trial.is_some() && self.record.tries == 0 {
            self.end_spent_trial();
        }
        let trial = self.record.trial.filter(|slot| self.writable && self.may(*slot));
        if let Some(slot) = trial {
            // Taken in this plan too: the same boot may come back to it.
            self.record.tries -= 1;
            self.try_taken = true;
            let record = self.started(Target::Slot(slot));
            return Choice::Start { slot, record, must_be_durable: true };
        }
        if let Some(slot) = self.best() {
            let record = self.started(Target::Slot(slot));
            return Choice::Start { slot, record, must_be_durable: false };
        }
        if self.recovery_left {
            self.recovery_left = false;
            return Choice::Recovery { record: self.started(Target::Recovery) };
        }
        Choice::Firmware
    }

    /// The record of a start that a person chose: no try is taken and the choice stays as it is.
    /// It is worth storing, but nothing waits for it.
    pub fn by_hand(&mut self, target: Target) -> Record {
        self.reasons.push(Reason::ByHand);
        self.started(target)
    }

    /// The record of the last choice could not be made durable: a trial is left out of this boot.
    pub fn not_writable(&mut self) {
        if self.writable {
            self.reasons.push(Reason::NotWritable);
        }
        self.writable = false;
        if self.try_taken {
            // Not on the disk.
            self.record.tries = self.record.tries.saturating_add(1);
            self.try_taken = false;
        }
    }

    /// A slot was refused, is unreadable or altered, or returned.
    pub fn load_failed(&mut self, slot: Slot, cause: Cause) {
        self.reasons.push(Reason::LoadFailed(slot, cause));
        self.left[slot.index()] = false;
        let entry = self.record.slot_mut(slot);
        // What was seen of it before weighs more and keeps its cause.
        if entry.fault < Fault::Evidence {
            entry.fault = Fault::Load;
            entry.cause = cause;
            entry.counted = false;
        }
        if self.record.trial == Some(slot) {
            self.record.end_trial();
        }
    }

    fn may(&self, slot: Slot) -> bool {
        self.left[slot.index()] && self.record.slot(slot).content == Content::Sealed
    }

    /// The best slot that has not failed in this boot: by fault, then the default. Of two that are
    /// equally faulty, the one whose last start never opened the gate stands back: a hang returns
    /// nothing to this boot, so only the next one can turn to the other.
    fn best(&self) -> Option<Slot> {
        let default = self.record.default;
        let last = self.record.last;
        let stands_back = |slot: Slot| {
            self.record.slot(slot).fault > Fault::None
                && last.target == Some(Target::Slot(slot))
                && last.stage < Stage::Gate
        };
        [default, default.other()]
            .into_iter()
            .filter(|slot| self.may(*slot) && self.record.trial != Some(*slot))
            .min_by_key(|slot| (self.record.slot(*slot).fault, stands_back(*slot)))
    }

    fn started(&self, target: Target) -> Record {
        let last = self.record.last;
        let same = last.target == Some(target);
        Record {
            nonce: self.start.nonce,
            confirmed_this_boot: false,
            last: LastStart {
                target: Some(target),
                stage: Stage::Loader,
                overdue: if same { last.overdue } else { 0 },
                watchdog: 0,
                rtc_s: self.start.rtc_s,
            },
            ..self.record.clone()
        }
    }

    fn end_spent_trial(&mut self) {
        let Some(slot) = self.record.trial else { return };
        self.record.end_trial();
        let entry = self.record.slot_mut(slot);
        entry.fault = entry.fault.max(Fault::Spent);
        entry.cause = Cause::TriesSpent;
        entry.counted = false;
        self.reasons.push(Reason::TrialSpent(slot));
    }

    /// Draws what can be drawn from how the last start ended. A trial has its tries for that.
    fn judge_last_start(&mut self) {
        let last = self.record.last;
        let Some(Target::Slot(slot)) = last.target else { return };
        if last.stage >= Stage::Confirmed {
            self.record.last.overdue = 0;
            return;
        }
        if self.record.trial == Some(slot) || self.record.slot(slot).content != Content::Sealed {
            return;
        }
        let limit = if last.stage == Stage::Loader { OVERDUE_LOADER_S } else { OVERDUE_S };
        let took = self.start.rtc_s.saturating_sub(last.rtc_s);
        if (limit..ABSURD_S).contains(&took) && last.rtc_s != 0 {
            self.record.last.overdue = last.overdue.saturating_add(1);
        }
        let known = *self.record.slot(slot);
        let has_credit = known.proven && known.fault == Fault::None;
        if !has_credit {
            // However it ended, the other goes first.
            self.condemn(slot, Cause::Hang);
            self.reasons.push(Reason::UnprovenEnded(slot));
        } else if self.record.last.overdue >= OVERDUE_MAX {
            self.record.last.overdue = 0;
            self.condemn(slot, Cause::Overdue);
            self.reasons.push(Reason::Overdue(slot));
        }
    }

    fn condemn(&mut self, slot: Slot, cause: Cause) {
        let entry = self.record.slot_mut(slot);
        if entry.fault < Fault::Evidence {
            entry.fault = Fault::Evidence;
            entry.cause = cause;
            entry.counted = false;
        }
    }
}

/// The record made from the slots' trailers alone: both unproven, the higher release on trial with
/// one try, the other the default. Without any trailer both are tried at every start all the same:
/// it may have been the reading that failed.
fn rebuild(disk_id: [u8; 16], trailers: [Option<ImageFacts>; 2]) -> Record {
    let mut record = Record::fresh(disk_id);
    for (slot, facts) in Slot::ALL.into_iter().zip(trailers) {
        if let Some(facts) = facts {
            *record.slot_mut(slot) = sealed(facts);
        }
    }
    match trailers {
        [Some(a), Some(b)] => {
            let higher = if b.release > a.release { Slot::B } else { Slot::A };
            record.default = higher.other();
            record.trial = Some(higher);
            record.tries = 1;
        }
        [None, Some(_)] => record.default = Slot::B,
        [Some(_), None] => record.default = Slot::A,
        [None, None] => {
            let unread = SlotRecord {
                content: Content::Sealed,
                fault: Fault::Load,
                cause: Cause::Unreadable,
                ..SlotRecord::EMPTY
            };
            record.slots = [unread; 2];
        }
    }
    record
}

/// The record of a fresh disk whose slot A holds an image: the default, not yet proven.
#[must_use]
pub fn factory(disk_id: [u8; 16], facts: ImageFacts) -> Record {
    rebuild(disk_id, [Some(facts), None])
}
