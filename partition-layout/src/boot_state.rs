//! Which slot starts next, and why: the slot rules.
//!
//! Pure: no clock, no disk. Everything that happens to a machine's choice of slot is an [`Event`];
//! [`step`] is the one match over them. What the loader does before any event is
//! [`crate::loader_plan`], whose names are found here too.
//! A returned record must be durable before the caller acts on it.
//!
//! # Invariants
//! - A slot that is a way back is disarmed only while the other one runs and was confirmed in this
//!   boot ([`may_overwrite`]).
//! - A trial starts only with its try already taken off; tries and refunds together only fall, and
//!   nothing but [`Event::Arm`] and [`Event::Rollback`] raises them.
//! - A fault ranks a slot and never erases it.
//! - A power cut alone adds no fault to a proven slot that has none.
//! - A digest in quarantine is armed only after [`Event::Force`], or by the operator's rollback
//!   when it was an operator who left it.

pub use crate::loader_plan::{ABSURD_S, Choice, LoaderPlan, OVERDUE_S, Reason, Start, factory};

use crate::record::{
    Cause, Content, Fault, LastStart, Quarantined, Record, SlotRecord, Stage, Target,
};
use crate::slot::Slot;
use core::fmt;

/// Tries of a fresh trial.
pub const TRIES: u8 = 3;
/// Clean stops that a trial may refund.
pub const REFUNDS: u8 = 8;
/// Reboots that may be asked for when the loader cannot write the record.
pub const ASKS_MAX: u8 = 3;
/// Overdue starts in a row that count as evidence.
pub const OVERDUE_MAX: u8 = 3;
/// So many spent trials of one digest speak against the release; fewer may have been power cuts.
pub const SPENT_MAX: u8 = 3;

/// Facts of an image, as its trailer or its signed labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageFacts {
    /// Release number.
    pub release: u64,
    /// Security version.
    pub secver: u32,
    /// SHA-256 of the manifest; zero when unknown.
    pub digest: [u8; 32],
}

/// Whose fault a failed gate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The running slot's.
    Slot,
    /// The state partition's: both slots share it, so neither is condemned.
    State,
}

/// What happened. `running` in [`step`] is the slot that the machine booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// os-init runs (os-init): stores the loader's last write again, with the watchdog's status. A
    /// start that the watchdog ended counts as overdue.
    /// Where that write is not on the disk, this one takes its place: nothing of an earlier boot,
    /// above all not its confirmation, is taken for this one's.
    Started {
        /// This boot's nonce, as the loader published it.
        nonce: [u8; 16],
        /// The watchdog's boot status; 0 is unknown.
        watchdog: u32,
    },
    /// The health gate is open (os-init).
    GateOpen,
    /// The health gate passed (os-init). Of a slot that is being left it changes nothing.
    Confirm,
    /// The health gate failed or its deadline passed (os-init).
    GateFailed {
        /// Whose fault it is.
        blame: Blame,
    },
    /// dm-verity found a corrupted block of the running slot (os-init).
    VerityError,
    /// The running slot was overdue [`OVERDUE_MAX`] times in a row (os-init).
    Overdue,
    /// The machine shuts down in order (os-init).
    CleanStop,
    /// The other slot is about to be overwritten (updater).
    Disarm,
    /// The other slot was written and read back (updater).
    Seal(ImageFacts),
    /// The other slot was read back whole once more and equals its signed hash (updater): a load
    /// fault is cleared.
    Scrubbed,
    /// The other slot shall be tried at the next start (updater, operator).
    Arm,
    /// Back to the other slot (operator).
    Rollback,
    /// This digest may be tried again (operator).
    Force {
        /// The manifest's SHA-256.
        digest: [u8; 32],
    },
    /// Ask for a reboot because the loader could not write (updater).
    AskReboot,
    /// Security versions below this are not installed any more (updater, after a soak).
    RaiseFloor {
        /// The new floor.
        secver: u32,
    },
}

/// What the caller does once the record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    None,
    /// Reboot: another slot is better now.
    Reboot,
    /// Stay up, degraded and reachable: there is nothing better to go to.
    StayDegraded,
}

/// The next record, and what to do once it is durable.
#[must_use = "acting before the record is durable undoes the promise of the flip"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The record to store; equal to the one before when nothing changed.
    pub record: Record,
    /// What to do afterwards.
    pub action: Action,
}

/// Why an event is refused; the record stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The running slot has not been confirmed in this boot, so the other is the only way back.
    NotConfirmed,
    /// The running slot is on trial.
    OnTrial,
    /// The other slot does not hold a whole image.
    NotSealed,
    /// The other slot was not disarmed before.
    NotDisarmed,
    /// The digest is in quarantine.
    Quarantined(Cause),
    /// The image's security version is below the floor.
    BelowFloor,
    /// The floor would exclude the running release.
    AboveRunning,
    /// No more reboots may be asked for.
    AsksSpent,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfirmed => f.write_str(
                "the running slot is not confirmed in this boot; wait for the health gate",
            ),
            Self::OnTrial => {
                f.write_str("the running slot is on trial; wait for the health gate, or roll back")
            }
            Self::NotSealed => f.write_str("the other slot does not hold a whole image"),
            Self::NotDisarmed => {
                f.write_str("the other slot was not disarmed before it was written")
            }
            Self::Quarantined(cause) => {
                write!(f, "the release is in quarantine: {}", cause.words())
            }
            Self::BelowFloor => f.write_str("the release's security version is below the floor"),
            Self::AboveRunning => f.write_str("the floor would exclude the running release"),
            Self::AsksSpent => {
                f.write_str("the loader could not write the record after several reboots")
            }
        }
    }
}

/// Performs one event on the record of a machine that runs from `running`.
///
/// # Errors
/// [`Refused`]; then nothing may be stored.
pub fn step(record: &Record, running: Slot, event: Event) -> Result<Step, Refused> {
    let mut next = record.clone();
    let other = running.other();
    let action = match event {
        Event::Started { nonce, watchdog } => {
            let is_first = next.nonce != nonce || next.last.stage < Stage::Init;
            started(&mut next, running, nonce);
            next.last.watchdog = watchdog;
            if is_first && watchdog != 0 {
                // The start before this one hung, however soon the watchdog ended it. A boot that
                // was confirmed has no others in a row.
                next.last.overdue = next.last.overdue.saturating_add(1);
            }
            Action::None
        }
        Event::GateOpen => {
            next.last.stage = next.last.stage.max(Stage::Gate);
            Action::None
        }
        Event::Confirm => confirm(&mut next, running),
        Event::GateFailed { blame: Blame::State } => Action::StayDegraded,
        Event::GateFailed { blame: Blame::Slot } => condemn(&mut next, running, Cause::Gate),
        Event::VerityError => condemn(&mut next, running, Cause::Verity),
        Event::Overdue => {
            next.last.overdue = 0;
            condemn(&mut next, running, Cause::Overdue)
        }
        // A stop that was asked for twice refunds once.
        Event::CleanStop if next.last.stage == Stage::Clean => Action::None,
        Event::CleanStop => {
            next.last.stage = Stage::Clean;
            if next.trial == Some(running) && next.clean > 0 {
                next.clean -= 1;
                next.tries = next.tries.saturating_add(1);
            }
            Action::None
        }
        Event::Disarm => disarm(&mut next, running)?,
        Event::Seal(facts) => {
            if next.slot(other).content != Content::Writing {
                return Err(Refused::NotDisarmed);
            }
            *next.slot_mut(other) = sealed(facts);
            Action::None
        }
        Event::Scrubbed => {
            if next.slot(other).content != Content::Sealed {
                return Err(Refused::NotSealed);
            }
            if next.slot(other).fault == Fault::Load {
                clear_fault(next.slot_mut(other));
            }
            Action::None
        }
        Event::Arm => arm(&mut next, running)?,
        Event::Rollback => rollback(&mut next, running)?,
        Event::Force { digest } => {
            release_digest(&mut next, &digest);
            Action::None
        }
        Event::AskReboot if next.asks >= ASKS_MAX => return Err(Refused::AsksSpent),
        Event::AskReboot => {
            next.asks += 1;
            Action::Reboot
        }
        Event::RaiseFloor { secver } if secver > next.slot(running).secver => {
            return Err(Refused::AboveRunning);
        }
        Event::RaiseFloor { secver } => {
            next.floor = next.floor.max(secver);
            Action::None
        }
    };
    Ok(Step { record: next, action })
}

/// A slot that was just written and read back.
#[must_use]
pub fn sealed(facts: ImageFacts) -> SlotRecord {
    SlotRecord {
        content: Content::Sealed,
        release: facts.release,
        secver: facts.secver,
        digest: facts.digest,
        ..SlotRecord::EMPTY
    }
}

fn clear_fault(slot: &mut SlotRecord) {
    slot.fault = Fault::None;
    slot.cause = Cause::Unknown;
    slot.counted = false;
}

fn started(next: &mut Record, running: Slot, nonce: [u8; 16]) {
    if next.nonce == nonce {
        next.last.stage = next.last.stage.max(Stage::Init);
        return;
    }
    next.nonce = nonce;
    next.confirmed_this_boot = false;
    next.last = LastStart {
        target: Some(Target::Slot(running)),
        stage: Stage::Init,
        overdue: 0,
        watchdog: 0,
        // When the loader started it is not known here.
        rtc_s: 0,
    };
    if next.trial == Some(running) {
        next.tries = next.tries.saturating_sub(1);
    }
}

fn confirm(next: &mut Record, running: Slot) -> Action {
    // Only a rollback during its trial leaves a running slot so.
    let is_left = next.last.target == Some(Target::Slot(running))
        && next.last.stage == Stage::Clean
        && next.trial.is_none()
        && next.default != running;
    if is_left && !next.confirmed_this_boot {
        return Action::Reboot;
    }
    next.last.stage = next.last.stage.max(Stage::Confirmed);
    next.last.overdue = 0;
    if next.confirmed_this_boot {
        return Action::None;
    }
    next.confirmed_this_boot = true;
    next.default = running;
    if next.trial == Some(running) {
        next.end_trial();
    }
    let slot = next.slot_mut(running);
    slot.proven = true;
    clear_fault(slot);
    // Only now is it known that the other release failed by itself: this one works on the same
    // machine with the same state.
    let other = *next.slot(running.other());
    if other.fault != Fault::None && !other.counted && other.cause.blames_release() {
        hold(next, &other.digest, other.cause);
        next.slot_mut(running.other()).counted = true;
    }
    Action::None
}

fn condemn(next: &mut Record, running: Slot, cause: Cause) -> Action {
    let other = *next.slot(running.other());
    let slot = next.slot_mut(running);
    // With evidence against it, it was started only because the other did not even load just now:
    // going there again and again would be a loop.
    let came_back = slot.fault == Fault::Evidence;
    slot.fault = Fault::Evidence;
    slot.cause = cause;
    slot.counted = false;
    if next.trial == Some(running) {
        next.end_trial();
    }
    if other.content == Content::Sealed && other.fault < Fault::Evidence && !came_back {
        Action::Reboot
    } else {
        Action::StayDegraded
    }
}

/// Whether the slot that does not run may be overwritten now.
///
/// Until the running slot is confirmed in this boot, the other may be the only way back. It is none
/// where it holds no whole image, or where evidence stands against both: a machine that stays up
/// degraded must be mendable by the next release.
///
/// # Errors
/// [`Refused::OnTrial`] or [`Refused::NotConfirmed`].
pub fn may_overwrite(record: &Record, running: Slot) -> Result<(), Refused> {
    if record.trial == Some(running) {
        return Err(Refused::OnTrial);
    }
    let is_confirmed = record.default == running && record.confirmed_this_boot;
    let other = record.slot(running.other());
    let both_failed = [record.slot(running), other].iter().all(|it| it.fault == Fault::Evidence);
    let way_back = other.content == Content::Sealed && !both_failed;
    if way_back && !is_confirmed { Err(Refused::NotConfirmed) } else { Ok(()) }
}

fn disarm(next: &mut Record, running: Slot) -> Result<Action, Refused> {
    may_overwrite(next, running)?;
    next.end_trial();
    *next.slot_mut(running.other()) = SlotRecord { content: Content::Writing, ..SlotRecord::EMPTY };
    Ok(Action::None)
}

fn arm(next: &mut Record, running: Slot) -> Result<Action, Refused> {
    if next.trial == Some(running) {
        return Err(Refused::OnTrial);
    }
    let other = *next.slot(running.other());
    if other.content != Content::Sealed {
        return Err(Refused::NotSealed);
    }
    if let Some(cause) = holds(next, &other.digest) {
        return Err(Refused::Quarantined(cause));
    }
    if other.secver < next.floor {
        return Err(Refused::BelowFloor);
    }
    if next.trial == Some(running.other()) && next.tries > 0 {
        return Ok(Action::None);
    }
    start_trial(next, running.other());
    Ok(Action::None)
}

fn start_trial(next: &mut Record, slot: Slot) {
    next.trial = Some(slot);
    next.tries = TRIES;
    next.clean = REFUNDS;
    next.asks = 0;
    // The way back is the slot that runs, also where it was a fallback that is not confirmed yet.
    next.default = slot.other();
    clear_fault(next.slot_mut(slot));
}

fn rollback(next: &mut Record, running: Slot) -> Result<Action, Refused> {
    if let Some(trial) = next.trial {
        // Running on trial, or only armed: the trial ends, and its digest is held.
        let digest = next.slot(trial).digest;
        hold(next, &digest, Cause::Operator);
        next.end_trial();
        if trial != running {
            return Ok(Action::None);
        }
        // From here on it is left, however long it still runs: a power cut before the reboot is no
        // hang, and a gate that passes meanwhile does not undo the operator's word.
        next.last.stage = Stage::Clean;
        return Ok(Action::Reboot);
    }
    if next.default != running || !next.confirmed_this_boot {
        return Err(Refused::NotConfirmed);
    }
    let other = *next.slot(running.other());
    if other.content != Content::Sealed {
        return Err(Refused::NotSealed);
    }
    if other.secver < next.floor {
        return Err(Refused::BelowFloor);
    }
    match next.quarantined(&other.digest).map(|entry| entry.cause) {
        Some(Cause::Operator) => release_digest(next, &other.digest),
        Some(cause) if holds(next, &other.digest).is_some() => {
            return Err(Refused::Quarantined(cause));
        }
        Some(_) | None => {}
    }
    let left = next.slot(running).digest;
    hold(next, &left, Cause::Operator);
    start_trial(next, running.other());
    Ok(Action::Reboot)
}

/// Whether a digest is held back, and why. A spent trial alone holds nothing until it has happened
/// [`SPENT_MAX`] times, since power cuts spend tries too.
#[must_use]
pub fn holds(record: &Record, digest: &[u8; 32]) -> Option<Cause> {
    record
        .quarantined(digest)
        .filter(|entry| entry.cause != Cause::TriesSpent || entry.count >= SPENT_MAX)
        .map(|entry| entry.cause)
}

/// Puts a digest into quarantine, or counts it once more. The entry with the lowest count makes
/// room when all are taken, the oldest of several; a digest of zeros is no digest.
fn hold(next: &mut Record, digest: &[u8; 32], cause: Cause) {
    let prefix = digest.first_chunk::<16>().copied();
    let Some(prefix) = prefix.filter(|prefix| *prefix != [0; 16]) else { return };
    let count = next.quarantined(digest).map_or(0, |entry| entry.count).saturating_add(1);
    // The low half is enough to tell older from newer.
    let generation = (next.generation & u64::from(u32::MAX)) as u32;
    let same = |entry: &Option<Quarantined>| entry.is_some_and(|entry| entry.prefix == prefix);
    let index = next.quarantine.iter().position(same).or_else(|| {
        let weight = |entry: Option<Quarantined>| entry.map(|e| (e.count, e.generation));
        let places = next.quarantine.iter().enumerate();
        places.min_by_key(|(_, entry)| weight(**entry)).map(|(index, _)| index)
    });
    if let Some(place) = index.and_then(|index| next.quarantine.get_mut(index)) {
        *place = Some(Quarantined { prefix, cause, count, generation });
    }
}

fn release_digest(next: &mut Record, digest: &[u8; 32]) {
    for place in &mut next.quarantine {
        if place.is_some_and(|entry| digest.starts_with(&entry.prefix)) {
            *place = None;
        }
    }
}
