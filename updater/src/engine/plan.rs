//! What is done next when a release is installed. Pure: no disk, no network; the time is given.
//!
//! ```text
//! resolve ─ verify ─ describe ─ read record ─┬─ nothing to do / refused
//!                                            ├─ inspect (sealed already) ─┐ equal: arm
//!                                            └─ [force] ─ disarm ─ open ─ stream ─ read back
//!                                               ─ write trailer ─ seal ─ [arm]
//! ```
//!
//! # Invariants
//! - Nothing is disarmed before a signature was verified and the policy said yes.
//! - The trailer is written only after the whole slot was read back equal; the slot is sealed only
//!   after its trailer is on the medium; it is armed only when sealed.
//! - A trailer may be on the medium of a slot that the record calls *writing*: a cut between the
//!   two. The next apply inspects nothing then and writes anew, from what the checkpoint knows.

use std::time::Duration;

use partition_layout::boot_state::{ImageFacts, holds};
use partition_layout::record::Record;
use update_manifest::digest::Digest;
use update_manifest::release::Release;

use crate::failure::{Class, Failure};
use crate::policy::{Decision, Leave, Machine, judge, may_write};

/// Interruptions in a row without a new frame, after which the download is given up.
const INTERRUPTIONS_MAX: u32 = 8;
/// The download is given up when no frame came for this long.
const STANDSTILL_MAX: Duration = Duration::from_secs(600);

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Say what would be done.
    Look,
    /// Until the slot is sealed.
    Seal,
    /// Until the slot is armed.
    Arm,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// How far to go.
    pub goal: Goal,
    /// What to overlook.
    pub leave: Leave,
}

/// The pauses between two tries of the download: doubled from the first to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// After the first interruption.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

/// What happened, told by the shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The tag was resolved.
    Resolved,
    /// A trusted key vouches for what it resolved to.
    Vouched,
    /// The verified release and the digest of its manifest.
    Described(Digest, Box<Release>),
    /// The boot record as it is now.
    Record(Box<Record>),
    /// The record took the event, or the trailer is on the medium.
    Done,
    /// The slot is open, disarmed, and what was in it before is found again.
    Opened,
    /// Every frame is on the medium and the bytes received are the signed ones.
    Received,
    /// The download broke off with so many frames done.
    Interrupted(usize, Failure),
    /// A frame was not what it should be, with so many frames done.
    BadFrame(usize, String),
    /// The whole slot was read back and is equal.
    ReadBack,
    /// The sealed slot was read: equal to what was signed, or not.
    Inspected(bool),
    /// The pause is over.
    Waited,
    /// It cannot go on.
    Failed(Failure),
}

/// What the shell does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Resolve the reference.
    Resolve,
    /// Look for a valid signature.
    Verify,
    /// Read manifest and config.
    Describe,
    /// Read the boot record.
    ReadRecord,
    /// Tell the record that an operator wants this digest in spite of its quarantine.
    Force([u8; 32]),
    /// Tell the record that the other slot is about to be written.
    Disarm,
    /// Open the slot, zero its trailer, take up what is there.
    Open,
    /// Stream frames into the slot from where it stands.
    Stream,
    /// Wait.
    Wait(Duration),
    /// Read the whole slot back and compare.
    ReadBack,
    /// Write the trailer.
    WriteTrailer,
    /// Tell the record that the other slot is whole.
    Seal(ImageFacts),
    /// Read the sealed slot and compare.
    Inspect,
    /// Tell the record to try the other slot.
    Arm,
    /// Stop; this is the result.
    Finish(Box<Result<Outcome, Failure>>),
}

/// How it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It runs already.
    Running,
    /// It is no newer than what runs.
    NotNewer,
    /// It was armed already.
    AlreadyArmed,
    /// It was sealed already, and no more was asked for.
    AlreadySealed,
    /// It may be installed; no more was asked for.
    Available,
    /// It is sealed in the other slot.
    Sealed,
    /// The next start tries it.
    Armed,
}

impl Outcome {
    /// The word in JSON and in the protocol.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Running => "running",
            Outcome::NotNewer => "not-newer",
            Outcome::AlreadyArmed => "already-armed",
            Outcome::AlreadySealed => "already-sealed",
            Outcome::Available => "available",
            Outcome::Sealed => "sealed",
            Outcome::Armed => "armed",
        }
    }

    /// Whether nothing had to be done.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        matches!(
            self,
            Outcome::Running | Outcome::NotNewer | Outcome::AlreadyArmed | Outcome::AlreadySealed
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Resolving,
    Verifying,
    Describing,
    Judging,
    Forcing(Next),
    Disarming,
    Opening,
    Streaming,
    Waiting,
    ReadingBack,
    Trailer,
    Sealing,
    Inspecting,
    Arming,
    Finished,
}

/// What follows once a quarantine is lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Disarm,
    Inspect,
}

/// One installation on its way.
#[derive(Debug, Clone)]
pub struct Plan {
    order: Order,
    machine: Machine,
    pauses: Pauses,
    stage: Stage,
    facts: Option<ImageFacts>,
    release: Option<Box<Release>>,
    /// Interruptions since the last new frame.
    interruptions: u32,
    /// The frame that was bad once already.
    bad_frame: Option<usize>,
    progress: usize,
    progress_at: Duration,
}

impl Plan {
    /// Begins; the first action is [`Action::Resolve`].
    #[must_use]
    pub fn begin(order: Order, machine: Machine, pauses: Pauses) -> (Plan, Action) {
        let plan = Plan {
            order,
            machine,
            pauses,
            stage: Stage::Resolving,
            facts: None,
            release: None,
            interruptions: 0,
            bad_frame: None,
            progress: 0,
            progress_at: Duration::ZERO,
        };
        (plan, Action::Resolve)
    }

    /// The word for what is being done.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self.stage {
            Stage::Resolving => "resolving",
            Stage::Verifying => "verifying",
            Stage::Describing | Stage::Judging => "checking",
            Stage::Forcing(_) | Stage::Disarming | Stage::Opening => "preparing",
            Stage::Streaming => "downloading",
            Stage::Waiting => "waiting",
            Stage::ReadingBack | Stage::Inspecting => "reading back",
            Stage::Trailer | Stage::Sealing => "sealing",
            Stage::Arming => "arming",
            Stage::Finished => "finished",
        }
    }

    /// Takes what happened at `now` (any clock that only goes forward) and says what to do next.
    #[must_use]
    pub fn step(mut self, event: Event, now: Duration) -> (Plan, Action) {
        let action = match (self.stage, event) {
            (_, Event::Failed(failure)) => self.finish(Err(failure)),
            (Stage::Resolving, Event::Resolved) => self.go(Stage::Verifying, Action::Verify),
            (Stage::Verifying, Event::Vouched) => self.go(Stage::Describing, Action::Describe),
            (Stage::Describing, Event::Described(digest, release)) => {
                self.facts = Some(ImageFacts {
                    release: release.labels.release,
                    secver: release.labels.secver,
                    digest: digest.0,
                });
                self.release = Some(release);
                self.go(Stage::Judging, Action::ReadRecord)
            }
            (Stage::Judging, Event::Record(record)) => self.judge(&record),
            (Stage::Forcing(Next::Disarm), Event::Done)
            | (Stage::Inspecting, Event::Inspected(false)) => {
                self.go(Stage::Disarming, Action::Disarm)
            }
            (Stage::Forcing(Next::Inspect), Event::Done) => {
                self.go(Stage::Inspecting, Action::Inspect)
            }
            (Stage::Inspecting, Event::Inspected(true)) => self.go(Stage::Arming, Action::Arm),
            (Stage::Disarming, Event::Done) => self.go(Stage::Opening, Action::Open),
            (Stage::Opening, Event::Opened) => {
                self.progress_at = now;
                self.go(Stage::Streaming, Action::Stream)
            }
            (Stage::Waiting, Event::Waited) => self.go(Stage::Streaming, Action::Stream),
            (Stage::Streaming, Event::Interrupted(done, failure)) => {
                self.interrupted(done, failure, now)
            }
            (Stage::Streaming, Event::BadFrame(done, why)) => self.bad_frame(done, why),
            (Stage::Streaming, Event::Received) => self.go(Stage::ReadingBack, Action::ReadBack),
            (Stage::ReadingBack, Event::ReadBack) => self.go(Stage::Trailer, Action::WriteTrailer),
            (Stage::Trailer, Event::Done) => match self.facts {
                Some(facts) => self.go(Stage::Sealing, Action::Seal(facts)),
                None => self.out_of_step(),
            },
            (Stage::Sealing, Event::Done) if self.order.goal == Goal::Arm => {
                self.go(Stage::Arming, Action::Arm)
            }
            (Stage::Sealing, Event::Done) => self.finish(Ok(Outcome::Sealed)),
            (Stage::Arming, Event::Done) => self.finish(Ok(Outcome::Armed)),
            _ => self.out_of_step(),
        };
        (self, action)
    }

    fn judge(&mut self, record: &Record) -> Action {
        let (Some(release), Some(facts)) = (&self.release, self.facts) else {
            return self.out_of_step();
        };
        let digest = Digest(facts.digest);
        let decision = match judge(release, digest, &self.machine, record, self.order.leave) {
            Ok(decision) => decision,
            Err(failure) => return self.finish(Err(failure)),
        };
        let is_held = holds(record, &facts.digest).is_some();
        let next = match (decision, self.order.goal) {
            (Decision::Running, _) => return self.finish(Ok(Outcome::Running)),
            (Decision::NotNewer, _) => return self.finish(Ok(Outcome::NotNewer)),
            (Decision::Armed, _) => return self.finish(Ok(Outcome::AlreadyArmed)),
            (Decision::Sealed, Goal::Look | Goal::Seal) => {
                return self.finish(Ok(Outcome::AlreadySealed));
            }
            (Decision::Install, Goal::Look) => return self.finish(Ok(Outcome::Available)),
            (Decision::Sealed, Goal::Arm) => Next::Inspect,
            (Decision::Install, Goal::Seal | Goal::Arm) => Next::Disarm,
        };
        if let Err(failure) = may_write(&self.machine, record) {
            return self.finish(Err(failure));
        }
        match (is_held, next) {
            (true, next) => self.go(Stage::Forcing(next), Action::Force(facts.digest)),
            (false, Next::Inspect) => self.go(Stage::Inspecting, Action::Inspect),
            (false, Next::Disarm) => self.go(Stage::Disarming, Action::Disarm),
        }
    }

    fn interrupted(&mut self, done: usize, failure: Failure, now: Duration) -> Action {
        if done > self.progress {
            self.progress = done;
            self.progress_at = now;
            self.interruptions = 0;
        }
        self.interruptions += 1;
        let stands_still = now.saturating_sub(self.progress_at) > STANDSTILL_MAX;
        if self.interruptions > INTERRUPTIONS_MAX || stands_still {
            return self.finish(Err(failure));
        }
        let pause = self.pauses.first.saturating_mul(1 << (self.interruptions - 1).min(10));
        self.go(Stage::Waiting, Action::Wait(pause.min(self.pauses.longest)))
    }

    /// A bad frame may be the line's fault once; twice the same is the image's.
    fn bad_frame(&mut self, done: usize, why: String) -> Action {
        if self.bad_frame == Some(done) {
            let message = format!("layer is not what the release describes: {why}");
            return self.finish(Err(Failure::new(Class::Corrupt, "blob", message)));
        }
        self.bad_frame = Some(done);
        self.go(Stage::Streaming, Action::Stream)
    }

    fn go(&mut self, stage: Stage, action: Action) -> Action {
        self.stage = stage;
        action
    }

    fn finish(&mut self, result: Result<Outcome, Failure>) -> Action {
        self.stage = Stage::Finished;
        Action::Finish(Box::new(result))
    }

    fn out_of_step(&mut self) -> Action {
        let message = format!("update engine out of step while {}", self.phase());
        self.finish(Err(Failure::new(Class::System, "engine", message)))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
