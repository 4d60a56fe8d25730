//! The world that the slot rules live in: a machine that starts, hangs, fails and updates, people
//! and faults. It decides what *can* happen; what is done about it is the real code's.

use partition_layout::boot_state::{
    Action, Blame, Choice, Event, ImageFacts, LoaderPlan, Start, factory, step,
};
use partition_layout::record::{Cause, Content, Fault, Record, Target};
use partition_layout::slot::Slot;
use std::collections::HashMap;

/// How an image behaves on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Good,
    FailsGate,
    /// A block of its root is corrupt; found while the gate is open or later.
    Rotten,
    /// Hangs before os-init, until somebody resets the machine.
    HangsEarly,
    /// Hangs after os-init reported.
    HangsLate,
    /// Resets within seconds.
    Panics,
    /// Its kernel image cannot be started.
    Refused,
}

impl Kind {
    pub fn comes_up(self) -> bool {
        matches!(self, Self::Good | Self::FailsGate | Self::Rotten)
    }
}

/// What really lies in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Truth {
    Garbage,
    Image { release: u8, kind: Kind },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reached {
    Kernel,
    Init,
    Gate,
    Confirmed,
    /// Up and reachable, not confirmed, and not going to be.
    Degraded,
    /// Confirmed in this boot, and degraded since: up and reachable.
    Broken,
}

/// What the updater has in hand; gone at a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    None,
    Writing,
    TrailerWritten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// Off since a start that lasted long, or not.
    Off {
        long: bool,
    },
    Hung,
    Up {
        slot: Slot,
        reached: Reached,
        job: Job,
    },
    Recovery,
}

/// How much may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    pub cuts: u8,
    /// Decays, losses of the record, and the record turning read-only.
    pub faults: u8,
    pub updates: u8,
    pub arms: u8,
    pub rollbacks: u8,
    pub stops: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// Index of the durable record; `None`: every place is damaged.
    pub record: Option<u32>,
    pub truth: [Truth; 2],
    /// Whether the loader's writes arrive, and the running system's.
    pub loader_writes: bool,
    pub system_writes: bool,
    pub power: Power,
    pub budget: Budget,
}

/// Who makes a move: progress happens by itself, the others may or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    Progress,
    Fault,
    Person,
}

#[derive(Debug, Clone)]
pub struct Move {
    pub by: Mover,
    pub name: String,
    pub to: State,
}

const NONCE: [u8; 16] = [1; 16];
const CLOCK_S: u64 = 10_000;

/// All records seen, each once; a state holds an index.
#[derive(Default)]
pub struct World {
    records: Vec<Record>,
    known: HashMap<Record, u32>,
    moves: Vec<Move>,
}

fn facts(release: u8) -> ImageFacts {
    ImageFacts { release: release.into(), secver: 1, digest: [release; 32] }
}

impl World {
    pub fn start(&mut self, budget: Budget) -> State {
        let mut record = factory([9; 16], facts(1));
        record.slots[0].proven = true;
        State {
            record: Some(self.intern(record)),
            truth: [Truth::Image { release: 1, kind: Kind::Good }, Truth::Garbage],
            loader_writes: true,
            system_writes: true,
            power: Power::Off { long: false },
            budget,
        }
    }

    pub fn record(&self, state: &State) -> Option<&Record> {
        state.record.map(|index| &self.records[index as usize])
    }

    /// The choice that a record holds, for a failure's message.
    pub fn words(&self, state: &State) -> String {
        self.record(state).map_or("no record".into(), |record| {
            let [a, b] = record.slots.map(|s| (s.content, s.proven, s.fault, s.cause));
            let (default, trial, tries) = (record.default, record.trial, record.tries);
            format!(
                "default {default}, trial {trial:?}, {tries} tries, {:?}, A {a:?}, B {b:?}",
                record.last
            )
        })
    }

    /// Keeps a record without what only counts or tells the time.
    fn intern(&mut self, mut record: Record) -> u32 {
        record.generation = 1;
        record.raw = [0; 512];
        record.last.watchdog = 0;
        if record.last.rtc_s != 0 {
            record.last.rtc_s = CLOCK_S;
        }
        for entry in record.quarantine.iter_mut().flatten() {
            entry.generation = 0;
        }
        let next = u32::try_from(self.records.len()).unwrap();
        *self.known.entry(record).or_insert_with_key(|record| {
            self.records.push(record.clone());
            next
        })
    }

    /// Everything that can happen next.
    pub fn moves(&mut self, state: &State) -> Vec<Move> {
        self.moves = Vec::new();
        match state.power {
            Power::Off { long } => {
                self.faults_while_off(state);
                self.boot(*state, long);
            }
            Power::Hung => {
                self.add(Mover::Progress, "reset after a hang", off(state, true));
            }
            Power::Up { slot, reached, job } => self.up(state, slot, reached, job),
            Power::Recovery => {}
        }
        std::mem::take(&mut self.moves)
    }

    fn add(&mut self, by: Mover, name: impl Into<String>, to: State) {
        self.moves.push(Move { by, name: name.into(), to });
    }

    fn faults_while_off(&mut self, state: &State) {
        if state.budget.faults == 0 {
            return;
        }
        let mut lost = *state;
        lost.budget.faults -= 1;
        lost.record = None;
        self.add(Mover::Fault, "all record places lost", lost);
        if state.loader_writes {
            let mut stuck = *state;
            stuck.budget.faults -= 1;
            stuck.loader_writes = false;
            self.add(Mover::Fault, "the loader cannot write any more", stuck);
            stuck.system_writes = false;
            self.add(Mover::Fault, "the record turns read-only", stuck);
        }
    }

    /// The loader, with a power cut before and after each of its stores.
    fn boot(&mut self, mut state: State, long: bool) {
        // The nonce on the disk is of an earlier start.
        if let Some(record) = self.record(&state).cloned() {
            state.record = Some(self.intern(Record { nonce: [0; 16], ..record }));
        }
        let rtc_s = CLOCK_S + if long { 700 } else { 5 };
        let start = Start { nonce: NONCE, rtc_s };
        let mut plan = match self.record(&state) {
            Some(record) => LoaderPlan::new(record, start),
            None => {
                let trailers = state.truth.map(|truth| match truth {
                    Truth::Image { release, .. } => Some(facts(release)),
                    Truth::Garbage => None,
                });
                LoaderPlan::rebuild([9; 16], trailers, start)
            }
        };
        let mut answers = 0;
        loop {
            answers += 1;
            assert!(answers < 8, "the loader's plan does not end");
            match plan.choose() {
                Choice::Start { slot, record, must_be_durable } => {
                    let before = self.record(&state).map(|record| (record.trial, fuel(record)));
                    let stored = self.loader_stores(&mut state, &record);
                    if !stored {
                        plan.not_writable();
                        if must_be_durable {
                            continue;
                        }
                    }
                    if record.trial == Some(slot) {
                        assert!(stored, "a trial starts and its try is not on the disk");
                        let fell =
                            before.is_none_or(|(_, fuel_before)| fuel(&record) < fuel_before);
                        assert!(fell, "a trial starts and costs nothing");
                    }
                    if self.launch(&state, slot) {
                        return;
                    }
                    plan.load_failed(slot, Cause::Refused);
                }
                Choice::Recovery { record } => {
                    for slot in Slot::ALL {
                        let left_out = !state.loader_writes && record.trial == Some(slot);
                        let loads = matches!(state.truth[slot.index()],
                            Truth::Image { kind, .. } if kind != Kind::Refused);
                        let sealed = record.slot(slot).content == Content::Sealed;
                        assert!(!loads || !sealed || left_out, "recovery, and slot {slot} is good");
                    }
                    self.loader_stores(&mut state, &record);
                    self.add(
                        Mover::Progress,
                        "recovery",
                        State { power: Power::Recovery, ..state },
                    );
                    return;
                }
                Choice::Firmware => unreachable!("recovery always starts here"),
            }
        }
    }

    fn loader_stores(&mut self, state: &mut State, record: &Record) -> bool {
        if !state.loader_writes {
            return false;
        }
        self.cuts(state, "in the loader, before its store");
        state.record = Some(self.intern(record.clone()));
        self.cuts(state, "in the loader, after its store");
        true
    }

    /// Starts what is in the slot; false when it does not load.
    fn launch(&mut self, state: &State, slot: Slot) -> bool {
        let Truth::Image { kind, .. } = state.truth[slot.index()] else { return false };
        let power = match kind {
            Kind::Refused => return false,
            Kind::HangsEarly => Power::Hung,
            _ => Power::Up { slot, reached: Reached::Kernel, job: Job::None },
        };
        self.add(Mover::Progress, format!("loader starts {slot}"), State { power, ..*state });
        true
    }

    fn cuts(&mut self, state: &State, place: &str) {
        if state.budget.cuts > 0 {
            for long in [false, true] {
                let mut cut = off(state, long);
                cut.budget.cuts -= 1;
                let outage = if long { "a long" } else { "a short" };
                self.add(Mover::Fault, format!("power cut {place}, {outage} outage"), cut);
            }
        }
    }

    /// Performs an event as the record helper does: nothing is done unless it is durable.
    fn apply(&mut self, state: &State, slot: Slot, event: Event) -> Applied {
        let Some(before) = self.record(state).cloned() else { return Applied::Failed };
        let Ok(next) = step(&before, slot, event) else { return Applied::Refused };
        let raises = matches!(event, Event::Arm | Event::Rollback);
        assert!(raises || fuel(&next.record) <= fuel(&before), "{event:?} raises the tries");
        check_step(&before, slot, event, &next.record);
        if !state.system_writes && next.record != before {
            return Applied::Failed;
        }
        let record = Some(self.intern(next.record));
        Applied::Done(State { record, ..*state }, next.action)
    }

    fn up(&mut self, state: &State, slot: Slot, reached: Reached, job: Job) {
        self.cuts(state, "while it runs");
        let Truth::Image { kind, .. } = state.truth[slot.index()] else {
            panic!("slot {slot} runs and was overwritten")
        };
        let at = |state: State, reached| State { power: Power::Up { slot, reached, job }, ..state };
        match (reached, kind) {
            (Reached::Kernel, Kind::Panics) => {
                self.add(Mover::Progress, "panics", off(state, false));
            }
            (Reached::Kernel, _) => {
                let event = Event::Started { nonce: NONCE, watchdog: 0 };
                let next = self.apply(state, slot, event).or(state);
                self.add(Mover::Progress, "os-init runs", at(next, Reached::Init));
            }
            (Reached::Init, Kind::HangsLate) => {
                self.add(Mover::Progress, "hangs", State { power: Power::Hung, ..*state });
            }
            (Reached::Init, _) => {
                let next = self.apply(state, slot, Event::GateOpen).or(state);
                self.add(Mover::Progress, "the gate opens", at(next, Reached::Gate));
            }
            (Reached::Gate, Kind::Good) => match self.apply(state, slot, Event::Confirm) {
                Applied::Done(next, _) => {
                    self.add(Mover::Progress, "confirmed", at(next, Reached::Confirmed));
                }
                _ => self.add(Mover::Progress, "cannot confirm", at(*state, Reached::Degraded)),
            },
            (Reached::Gate, Kind::FailsGate) => {
                self.verdict(state, slot, reached, Event::GateFailed { blame: Blame::Slot });
            }
            (Reached::Gate | Reached::Confirmed, Kind::Rotten) => {
                self.verdict(state, slot, reached, Event::VerityError);
            }
            _ => {}
        }
        if reached >= Reached::Gate {
            self.people(state, slot, reached, job);
        }
        if reached == Reached::Confirmed && state.budget.faults > 0 {
            self.decays(state);
        }
    }

    fn verdict(&mut self, state: &State, slot: Slot, reached: Reached, event: Event) {
        let confirmed = reached == Reached::Confirmed;
        let reached = if confirmed { Reached::Broken } else { Reached::Degraded };
        let degraded = Power::Up { slot, reached, job: Job::None };
        let (next, power) = match self.apply(state, slot, event) {
            Applied::Done(next, Action::Reboot) => (next, Power::Off { long: false }),
            Applied::Done(next, _) => (next, degraded),
            _ => (*state, degraded),
        };
        self.add(Mover::Progress, format!("{event:?}"), State { power, ..next });
    }

    fn decays(&mut self, state: &State) {
        let kinds = [
            Kind::FailsGate,
            Kind::Rotten,
            Kind::HangsEarly,
            Kind::HangsLate,
            Kind::Panics,
            Kind::Refused,
        ];
        for (index, truth) in state.truth.into_iter().enumerate() {
            let Truth::Image { release, kind: Kind::Good } = truth else { continue };
            for kind in kinds {
                let mut next = *state;
                next.truth[index] = Truth::Image { release, kind };
                next.budget.faults -= 1;
                self.add(Mover::Fault, format!("slot {} turns {kind:?}", Slot::ALL[index]), next);
            }
        }
    }

    /// Whether the slot that does not run may be what this machine comes back to.
    fn is_way_back(&self, state: &State, running: Slot) -> bool {
        let Some(record) = self.record(state) else { return true };
        let fault = |slot| record.slot(slot).fault;
        let both_failed = Slot::ALL.into_iter().all(|slot| fault(slot) == Fault::Evidence);
        record.slot(running.other()).content == Content::Sealed && !both_failed
    }

    /// The updater and the operator.
    fn people(&mut self, state: &State, slot: Slot, reached: Reached, job: Job) {
        let other = slot.other();
        let with = |state: State, job| State { power: Power::Up { slot, reached, job }, ..state };
        match job {
            Job::None if state.budget.updates > 0 => {
                if let Applied::Done(mut next, _) = self.apply(state, slot, Event::Disarm) {
                    let confirmed = matches!(reached, Reached::Confirmed | Reached::Broken);
                    let way_back = self.is_way_back(state, slot);
                    assert!(confirmed || !way_back, "a way back is disarmed, and never confirmed");
                    next.budget.updates -= 1;
                    next.truth[other.index()] = Truth::Garbage;
                    self.add(Mover::Person, "disarm", with(next, Job::Writing));
                }
            }
            Job::None => {}
            Job::Writing => {
                let release = 4 - state.budget.updates;
                for kind in
                    [Kind::Good, Kind::FailsGate, Kind::HangsEarly, Kind::Panics, Kind::Refused]
                {
                    let mut next = *state;
                    next.truth[other.index()] = Truth::Image { release, kind };
                    let name = format!("write release {release}, which is {kind:?}");
                    self.add(Mover::Person, name, with(next, Job::TrailerWritten));
                }
            }
            Job::TrailerWritten => {
                let Truth::Image { release, .. } = state.truth[other.index()] else { return };
                if let Applied::Done(next, _) = self.apply(state, slot, Event::Seal(facts(release)))
                {
                    self.add(Mover::Person, "seal", with(next, Job::None));
                }
            }
        }
        if state.budget.arms > 0
            && let Applied::Done(mut next, _) = self.apply(state, slot, Event::Arm)
        {
            next.budget.arms -= 1;
            self.add(Mover::Person, "arm", with(next, job));
        }
        if state.budget.rollbacks > 0
            && let Applied::Done(mut next, action) = self.apply(state, slot, Event::Rollback)
        {
            next.budget.rollbacks -= 1;
            let to = if action == Action::Reboot { off(&next, false) } else { with(next, job) };
            self.add(Mover::Person, "rollback", to);
        }
        let armed = self.record(state).is_some_and(|record| record.trial == Some(other));
        if armed || state.budget.stops > 0 {
            let mut next = self.apply(state, slot, Event::CleanStop).or(state);
            next.budget.stops = next.budget.stops.saturating_sub(u8::from(!armed));
            self.add(Mover::Person, "clean stop", off(&next, false));
        }
    }
}

enum Applied {
    Done(State, Action),
    Refused,
    Failed,
}

impl Applied {
    fn or(self, before: &State) -> State {
        match self {
            Self::Done(state, _) => state,
            Self::Refused | Self::Failed => *before,
        }
    }
}

impl PartialOrd for Reached {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some((*self as u8).cmp(&(*other as u8)))
    }
}

fn off(state: &State, long: bool) -> State {
    State { power: Power::Off { long }, ..*state }
}

fn fuel(record: &Record) -> u8 {
    record.tries + record.clean
}

/// What no event may do, whatever the state.
fn check_step(before: &Record, slot: Slot, event: Event, after: &Record) {
    let (own, own_after) = (before.slot(slot), after.slot(slot));
    assert_eq!(own.content, own_after.content, "{event:?} touches the running slot's content");
    let held = |record: &Record| {
        let digest = record.slot(slot.other()).digest;
        partition_layout::boot_state::holds(record, &digest)
    };
    if event == Event::Arm {
        assert_eq!(held(before), None, "a held digest is armed");
    }
    if event == Event::Rollback && after.trial == Some(slot.other()) {
        assert!(matches!(held(before), None | Some(Cause::Operator)), "a held digest is armed");
    }
    if !matches!(event, Event::GateFailed { .. } | Event::VerityError | Event::Overdue) {
        assert!(own_after.fault <= own.fault, "{event:?} holds something against the running slot");
    }
    assert!(after.trial.is_none_or(|trial| trial != after.default), "the default is on trial");
}

/// Whether the start of this state can be one of a proven slot with nothing held against it that
/// resets within seconds: a row of power cuts looks the same, and those never count.
pub fn looks_like_power_cuts(record: &Record, truth: &[Truth; 2]) -> bool {
    let Some(Target::Slot(slot)) = record.last.target else { return false };
    let entry = record.slot(slot);
    let panics = matches!(truth[slot.index()], Truth::Image { kind: Kind::Panics, .. });
    entry.proven && entry.fault == Fault::None && panics
}
