//! Every power cut in an operation, with every fate of every sector that was not flushed, then every
//! power cut in the boots that follow.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use partition_layout::boot_state::holds;
use partition_layout::gpt;
use partition_layout::record::{Cause, Content, Fault, QUARANTINE_MAX, Record};
use partition_layout::slot::Slot;
use strict_disk::Fate;

use crate::fates;
use crate::machine::{Cut, Shared, StateFile};
use crate::update::by_hand;
use crate::world::{Behaviour, Power, World};
use strict_disk::random::Random;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many combinations of fates at one cut are all tried; where there are more, a part.
    pub exhaustive: usize,
    /// Seeded combinations where not all are tried.
    pub samples: usize,
    /// Of a thousand boots after a cut, so many are cut, too.
    pub second_per_mille: u64,
    /// Of a thousand boots after a second cut, so many are cut a third time.
    pub third_per_mille: u64,
    /// Crash states of one scenario after which it ends, in one round.
    pub states: u64,
    /// Foreign partition tables that are tried.
    pub foreign_tables: u64,
    /// Of so many cases of damage one is tried.
    pub one_in: u64,
}

impl Limits {
    /// In seconds, in a debug build.
    pub const TINY: Self = Self {
        exhaustive: 40,
        samples: 4,
        second_per_mille: 60,
        third_per_mille: 2,
        states: 150,
        foreign_tables: 40,
        one_in: 23,
    };
    /// In about a minute.
    pub const QUICK: Self = Self {
        exhaustive: 220,
        samples: 16,
        second_per_mille: 1000,
        third_per_mille: 250,
        states: 16_000,
        foreign_tables: 2_000,
        one_in: 1,
    };
    /// As much as there is time for, a round at a time.
    pub const FULL: Self = Self {
        exhaustive: 7_000,
        samples: 200,
        second_per_mille: 1000,
        third_per_mille: 250,
        states: 1_000_000,
        foreign_tables: 50_000,
        one_in: 1,
    };
}

/// What an operation promises beyond what every operation promises.
#[derive(Debug, Clone, Copy, Default)]
pub struct Promise {
    /// The records are lost from the start: what was acknowledged may be gone.
    pub records_lost: bool,
    /// A slot was damaged from the start: its trailer promises nothing.
    pub slots_damaged: bool,
    /// The release that can be installed afterwards, whatever happened.
    pub then_install: Option<u64>,
    /// The whole disk is made anew, with this release: until its table is there nothing starts.
    pub made_anew: Option<u64>,
}

/// Something that must never happen, and how it came to it.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What.
    pub what: String,
    /// The way there.
    pub history: Vec<String>,
}

/// What was seen of one scenario.
#[derive(Debug, Default)]
pub struct Seen {
    /// Distinct crash states.
    states: HashSet<(u64, u64)>,
    /// Of these, so many did not come up in an intact image, or broke another promise.
    pub unbootable: u64,
    /// Cut points in operations and boots.
    pub cuts: u64,
    /// Cut points at which not every combination of fates was tried.
    pub seeded_cuts: u64,
    /// Boots.
    pub boots: u64,
    /// The first promise that was broken.
    pub broken: Option<Broken>,
}

impl Seen {
    /// Distinct crash states.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.states.len() as u64
    }
}

/// Explores one scenario.
pub struct Explorer<'a> {
    /// How much is tried.
    pub limits: Limits,
    /// What the scenario promises.
    pub promise: Promise,
    /// For what is not tried exhaustively.
    pub random: Random,
    /// What was seen.
    pub seen: &'a mut Seen,
    /// States at which this round ends.
    pub until: u64,
    /// States at which the cut that is tried ends.
    pub cut_until: u64,
}

/// What was true when the operation began.
#[derive(Debug, Clone, Copy)]
struct Before {
    /// The slot that ran confirmed, good.
    ran: Option<Slot>,
    /// The digests that were held back already.
    held: [Option<[u8; 16]>; QUARANTINE_MAX],
}

impl Explorer<'_> {
    /// Runs `operation` on `world` once to its end, and tries every cut in it.
    ///
    /// # Errors
    /// The operation itself failed.
    pub fn explore(
        &mut self,
        world: &World,
        operation: impl FnOnce(&mut World) -> Result<(), String>,
    ) -> Result<(), String> {
        let ran = match world.power {
            Power::Up { slot, confirmed: true } => Some(slot),
            // What ran last, confirmed and stopped in order, or cut off.
            _ => world.record().map(|record| record.default),
        };
        let record = world.record();
        let held = record.map(|record| record.quarantine.map(|entry| entry.map(|e| e.prefix)));
        let before = Before { ran, held: held.unwrap_or_default() };
        let (cuts, done) = noted(world, operation);
        done.map_err(|why| format!("{why}\n  {}", world.trail.join("\n  ")))?;
        for (index, cut) in cuts.iter().enumerate() {
            // What is left is shared out, so that a small limit reaches the last cut, too.
            let left = self.until.saturating_sub(self.seen.states());
            self.cut_until = self.seen.states() + left / (cuts.len() - index) as u64;
            self.cut(world, cut, before, 1);
            if self.seen.broken.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// One point at which the power goes, with every fate.
    fn cut(&mut self, world: &World, cut: &Cut, before: Before, depth: u32) {
        self.seen.cuts += 1;
        let unflushed = cut.disk.unflushed();
        let (assignments, complete) =
            fates::assignments(unflushed.len(), self.limits, &mut self.random);
        self.seen.seeded_cuts += u64::from(!complete);
        for (index, fates) in assignments.iter().enumerate() {
            for file in self.files(cut, index) {
                let mut disk = cut.disk.clone();
                let mut fate = fates.iter().copied();
                disk.power_cut(|_| fate.next().unwrap_or(Fate::Lost));
                let shared = Shared::new(disk, file, cut.acknowledged);
                let mut next = World { shared, trail: world.trail.clone(), ..world.fork() };
                next.starts += 100;
                next.say(fates::words(cut, &unflushed, fates, &world.layout));
                self.state(next, before, depth);
                // All kept and all lost are tried at every cut, however small the limit.
                let enough = self.seen.states() >= self.cut_until && index > 1;
                if self.seen.broken.is_some() || enough {
                    return;
                }
            }
        }
    }

    /// What may have become of the state file: all of it where few sectors are open, else one.
    fn files(&mut self, cut: &Cut, index: usize) -> Vec<StateFile> {
        let full = cut.files.first().is_some_and(|file| file.full);
        let now = cut.files.first().and_then(|file| file.content.clone());
        let garbage = now.as_ref().map(|bytes| {
            bytes.iter().map(|byte| if byte.is_ascii_digit() { b'7' } else { *byte }).collect()
        });
        let mut all = cut.files.clone();
        for content in [None, garbage] {
            all.push(StateFile { content, full });
        }
        all.dedup();
        if index < 2 {
            return all;
        }
        let chosen = if self.random.chance(700) { all.first() } else { self.random.pick(&all) };
        chosen.cloned().into_iter().collect()
    }

    /// One crash state: what lies on the disk is judged, then the machine starts.
    fn state(&mut self, mut world: World, before: Before, depth: u32) {
        let key = key(&world);
        if !self.seen.states.insert(key) {
            return;
        }
        world.power = Power::Off;
        world.gate_waits = false;
        // Short, longer than any boot, or so long that it says nothing; also a clock that jumps back.
        let outages = [5, 700, 7 * 86_400];
        if depth < 3 && self.random.chance(100) {
            world.clock_s = world.clock_s.saturating_sub(100_000);
            world.say("the clock jumps back");
        } else {
            let choices = if depth < 3 { &outages[..] } else { &outages[..1] };
            world.clock_s += self.random.pick(choices).copied().unwrap_or(5);
        }
        if let Err(what) = self.judge(&mut world, before, depth) {
            self.seen.unbootable += 1;
            let history = std::mem::take(&mut world.trail);
            self.seen.broken.get_or_insert(Broken { what, history });
        }
    }

    fn judge(&mut self, world: &mut World, before: Before, depth: u32) -> Result<(), String> {
        let made_anew = self.promise.made_anew;
        if made_anew.is_none() {
            self.judge_disk(world)?;
        }
        let record = world.record();
        let per_mille = match depth {
            1 => self.limits.second_per_mille,
            2 => self.limits.third_per_mille,
            _ => 0,
        };
        let again = self.random.chance(per_mille);
        let start = world.fork();
        if again {
            world.shared.lock().cuts = Some(Vec::new());
        }
        let starts = world.starts;
        let up = match made_anew {
            Some(number) => judge_made_anew(world, number, depth),
            None => world.come_up(),
        };
        self.seen.boots += world.starts - starts;
        let cuts = world.shared.lock().cuts.take().unwrap_or_default();
        up?;
        if made_anew.is_none() {
            self.judge_boot(world, before, record.as_ref())?;
        }
        if depth == 1 {
            self.go_on(world)?;
        }
        for cut in cuts {
            self.cut(&start, &cut, before, depth + 1);
            if self.seen.broken.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// What must be true of a disk that a cut left, before anything starts from it.
    fn judge_disk(&self, world: &World) -> Result<(), String> {
        let Some(record) = world.record() else {
            return if self.promise.records_lost {
                Ok(())
            } else {
                Err("no record is left, and there was one".into())
            };
        };
        let acknowledged = world.shared.lock().acknowledged;
        if record.generation < acknowledged && !self.promise.records_lost {
            return Err(format!(
                "record {acknowledged} was acknowledged and is lost; the newest is {}",
                record.generation
            ));
        }
        if self.promise.slots_damaged {
            return Ok(());
        }
        let facts = {
            let (mut slots, _) = loader::slots::Slots::read(world.shared.clone());
            Slot::ALL.map(|slot| slots.facts(slot))
        };
        for slot in Slot::ALL {
            let whole = world.holds(slot);
            if facts[slot.index()].is_some() && whole.is_none() {
                return Err(format!("slot {slot} has a valid trailer and is not whole"));
            }
            let entry = record.slot(slot);
            let sealed = entry.content == Content::Sealed && entry.fault == Fault::None;
            if sealed && whole != Some(entry.release) {
                return Err(format!(
                    "the record says that slot {slot} holds release {}, and it is not whole",
                    entry.release
                ));
            }
        }
        Ok(())
    }

    /// What must be true of the machine that came up after a cut.
    fn judge_boot(
        &self,
        world: &World,
        before: Before,
        record: Option<&Record>,
    ) -> Result<(), String> {
        let Power::Up { slot, confirmed } = world.power else {
            return Err(format!("no slot came up: {:?}", world.power));
        };
        let runs = world.holds(slot).ok_or_else(|| format!("slot {slot} runs and is not whole"))?;
        if !confirmed || world.behaviour(runs) != Behaviour::Good {
            return Err(format!("release {runs} runs in slot {slot} and is not confirmed"));
        }
        if let (Some(record), Some(ran)) = (record, before.ran) {
            let armed = record.trial == Some(slot);
            let left = record.slot(ran).fault > Fault::None;
            let moved_on = record.default == slot && record.slot(slot).proven;
            let ran_is_good =
                world.holds(ran).is_some_and(|r| world.behaviour(r) == Behaviour::Good);
            if slot != ran && ran_is_good && !armed && !left && !moved_on {
                return Err(format!("slot {ran} ran well, and slot {slot} was started unasked"));
            }
        }
        judge_holds(world, before)
    }

    /// After a cut an update can be made, and is started.
    fn go_on(&mut self, world: &World) -> Result<(), String> {
        let Some(number) = self.promise.then_install else { return Ok(()) };
        let mut world = world.fork();
        let said = |world: &World, why: String| {
            let since = world.trail.len().saturating_sub(12);
            format!("{why}; last: {}", world.trail[since..].join(" · "))
        };
        let image = world.library.borrow().image(number)?;
        let mut order = by_hand();
        order.leave.quarantined = true;
        world.install(&image, order, None).map_err(|failure| {
            said(&world, format!("the next apply fails: {}", failure.message))
        })?;
        world.stop();
        world.come_up().map_err(|why| said(&world, why))?;
        let runs = match world.power {
            Power::Up { slot, confirmed: true } => world.holds(slot),
            _ => None,
        };
        self.seen.boots += 1;
        if runs == Some(number) {
            return Ok(());
        }
        Err(said(&world, format!("release {number} was installed and {runs:?} runs")))
    }
}

/// A disk that was being made: there is a table, and whatever it names is whole; or there is none,
/// and the disk can be made once more.
fn judge_made_anew(world: &mut World, number: u64, depth: u32) -> Result<(), String> {
    // Later it says what a machine that started from the disk was told.
    let said_to_be_made = depth == 1 && world.shared.lock().acknowledged > 0;
    let has_table = gpt::read(&mut world.shared.clone()).is_ok();
    if !has_table {
        if said_to_be_made {
            return Err("the disk was said to be made, and has no table".into());
        }
        let factory = [world.esp_release(), world.recorded_release(), world.holds(Slot::A)];
        if world.firmware_believes_old() && factory != [Some(1); 3] {
            return Err("a table that was there still names what is overwritten".into());
        }
        world.say("there is no table: made once more");
        world.make_anew(number)?;
    }
    if !world.peek(World::firmware_believes) {
        return Err("there is a table, and the firmware starts nothing from it".into());
    }
    let esp = world.esp_release();
    world.come_up()?;
    let Power::Up { slot, confirmed: true } = world.power else {
        return Err(format!("what came up is {:?}", world.power));
    };
    let runs = world.holds(slot).ok_or("what runs is not whole")?;
    // Before, it was made with another; updates leave the ESP alone.
    if esp.is_none() || (esp == Some(number)) != (runs == number) {
        return Err(format!("release {runs} runs, and the ESP is that of {esp:?}"));
    }
    if runs != number && (said_to_be_made || !has_table) {
        return Err(format!("release {runs} runs from a disk that was made anew"));
    }
    let (mut slots, _) = loader::slots::Slots::read(world.shared.clone());
    if runs == number && slots.facts(slot.other()).is_some() {
        return Err(format!("slot {} still holds what was there before", slot.other()));
    }
    Ok(())
}

/// No good release is held because of a power cut.
fn judge_holds(world: &World, before: Before) -> Result<(), String> {
    let Some(record) = world.record() else { return Err("no record after a boot".into()) };
    for slot in Slot::ALL {
        let entry = record.slot(slot);
        let good = world.behaviour(entry.release) == Behaviour::Good;
        let cause = holds(&record, &entry.digest).filter(|cause| *cause != Cause::Operator);
        let known = before.held.iter().flatten().any(|prefix| entry.digest.starts_with(prefix));
        if entry.content == Content::Sealed && good && !known && cause.is_some() {
            return Err(format!("release {} is good and held", entry.release));
        }
    }
    Ok(())
}

/// Runs `operation` on a copy of `world` and notes every cut, the last one at its end.
fn noted(
    world: &World,
    operation: impl FnOnce(&mut World) -> Result<(), String>,
) -> (Vec<Cut>, Result<(), String>) {
    let mut once = world.fork();
    once.shared.lock().cuts = Some(Vec::new());
    let done = operation(&mut once).and_then(|()| once.check_accesses());
    let mut machine = once.shared.lock();
    let mut cuts = machine.cuts.take().unwrap_or_default();
    cuts.push(Cut {
        disk: machine.disk.clone(),
        files: vec![machine.file.clone()],
        before: "anything else, the operation is over".into(),
        acknowledged: machine.acknowledged,
    });
    drop(machine);
    (cuts, done.map_err(|why| format!("{why}; {}", once.trail.join(" · "))))
}

fn key(world: &World) -> (u64, u64) {
    let machine = world.shared.lock();
    let mut hasher = DefaultHasher::new();
    machine.file.hash(&mut hasher);
    machine.acknowledged.hash(&mut hasher);
    (machine.disk.fingerprint(0..u64::MAX / 2), hasher.finish())
}
