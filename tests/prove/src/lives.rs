//! Long lives: whole machines over years, with releases good and bad, decay, power cuts at any moment,
//! outages of the registry, a full state partition, and operators. The same product code as in
//! [`crate::crash`]; a power cut falls into the middle of whatever runs.
//!
//! After every step: some slot boots; power cuts alone take no machine off its slot and hold no good
//! release; the running slot is never written; tries and refunds only fall; what is held does not come
//! back; a confirmed slot that hangs is left; a good release that is served is reached.

use std::collections::{HashMap, HashSet};

use partition_layout::boot_state::{TRIES, holds};
use partition_layout::record::{Cause, Content, Fault, Record};
use partition_layout::slot::Slot;
use strict_disk::Fate;
use updater::engine::plan::{Goal, Order};
use updater::policy::{Direction, Leave};

use crate::boot::STARTS_MAX;
use crate::layout::Shape;
use crate::scenarios::library;
use crate::update::by_hand;
use crate::world::{Behaviour, Power, World};
use strict_disk::random::Random;

/// The release that every machine is born with; later ones count up from it.
const FIRST: u64 = 100;
/// A machine that may update must run a good release after so many days.
const REACHED_DAYS: u32 = 6;
/// Days in a year.
pub const YEAR: u32 = 365;

/// What happened in a life, counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Days lived.
    pub days: u64,
    /// Starts of the machine.
    pub starts: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Power cuts in the middle of a write or a read.
    pub cuts_inside: u64,
    /// Releases published.
    pub releases: u64,
    /// Updates that were confirmed.
    pub updates: u64,
    /// Trials that ended in a way back.
    pub fallbacks: u64,
    /// Commands of an operator.
    pub commands: u64,
    /// Slots that went bad.
    pub decays: u64,
    /// Releases that came back after their quarantine had made room for others.
    pub forgotten: u64,
}

impl Counts {
    /// Adds another life's.
    pub fn add(&mut self, other: &Self) {
        self.days += other.days;
        self.starts += other.starts;
        self.cuts += other.cuts;
        self.cuts_inside += other.cuts_inside;
        self.releases += other.releases;
        self.updates += other.updates;
        self.fallbacks += other.fallbacks;
        self.commands += other.commands;
        self.decays += other.decays;
        self.forgotten += other.forgotten;
    }
}

/// A promise that was broken in a life.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The life's own seed.
    pub seed: u64,
    /// What.
    pub what: String,
    /// What came before, the last of it.
    pub history: Vec<String>,
}

struct Life {
    world: World,
    random: Random,
    counts: Counts,
    day: u32,
    /// The release that the registry serves.
    served: u64,
    newest: u64,
    registry_out: u32,
    paused: bool,
    /// Days in a row on which the machine could have reached what is served.
    ready_days: u32,
    /// Starts of a trial that the power cut, by release.
    cut_trials: HashMap<u64, u32>,
    /// Releases that were held, not by an operator, and that no operator has freed.
    held: HashSet<u64>,
    /// Since the last check an operator or the updater armed a trial.
    may_raise: bool,
    fuel: u16,
    has_watchdog: bool,
}

/// Lives one life of so many days.
///
/// # Errors
/// The first promise that was broken.
pub fn live(seed: u64, days: u32, counts: &mut Counts) -> Result<(), Broken> {
    let broken = |what: String, history: Vec<String>| Broken { seed, what, history };
    let mut random = Random::new(seed);
    let sector_size = if random.chance(300) { 4096 } else { 512 };
    let world = World::factory(Shape::small(sector_size), FIRST)
        .map_err(|what| broken(what, Vec::new()))?;
    let has_watchdog = random.chance(500);
    let mut life = Life {
        world,
        random,
        counts: Counts::default(),
        day: 0,
        served: FIRST,
        newest: FIRST,
        registry_out: 0,
        paused: false,
        ready_days: 0,
        cut_trials: HashMap::new(),
        held: HashSet::new(),
        may_raise: true,
        fuel: 0,
        has_watchdog,
    };
    life.world.has_watchdog = life.has_watchdog;
    life.world.firmware_flushes = life.random.chance(700);
    let lived = life.run(days);
    life.counts.starts = life.world.starts;
    counts.add(&life.counts);
    lived.map_err(|what| broken(what, std::mem::take(&mut life.world.trail)))
}

impl Life {
    fn run(&mut self, days: u32) -> Result<(), String> {
        self.comes_up()?;
        for day in 0..days {
            self.day = day;
            let lines = self.world.trail.len();
            if lines > 400 {
                self.world.trail.drain(..lines - 200);
            }
            self.counts.days += 1;
            self.world.clock_s += 86_400;
            self.the_world_turns()?;
            self.people()?;
            self.the_daemon_acts()?;
            if self.random.chance(20) {
                self.cut("while it runs")?;
            }
            self.check_reached()?;
        }
        Ok(())
    }

    fn say(&mut self, what: &str) {
        let day = self.day;
        self.world.say(format!("day {day}: {what}"));
    }

    /// Releases, the registry, the disk's room, decay.
    fn the_world_turns(&mut self) -> Result<(), String> {
        if self.random.chance(30) {
            self.publish();
        }
        if self.registry_out > 0 {
            self.registry_out -= 1;
        } else if self.random.chance(10) {
            self.registry_out = u32::try_from(self.random.below(12)).unwrap_or(1);
            self.say("the registry is out");
        }
        if self.random.chance(8) {
            let full = !self.world.file().full;
            self.world.shared.lock().file.full = full;
            self.say(if full { "state is full" } else { "state has room again" });
        }
        if self.random.chance(3) {
            let hours = self.random.below(400) * 3600;
            self.world.clock_s = self.world.clock_s.saturating_sub(hours);
            self.say("the clock jumps back");
        }
        if self.random.chance(2) {
            self.decay()?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        // A bad release may be withdrawn: the tag goes back to the one before.
        let bad = self.world.behaviour(self.served) != Behaviour::Good;
        if bad && self.random.chance(300) {
            self.served = FIRST.max(self.served - 1);
            self.say("the release is withdrawn");
            return;
        }
        self.newest += 1;
        self.served = self.newest;
        self.counts.releases += 1;
        let kinds = [
            Behaviour::FailsGate,
            Behaviour::HangsEarly,
            Behaviour::HangsLate,
            Behaviour::Panics,
            Behaviour::Refused,
            Behaviour::Returns,
        ];
        let behaviour = match self.random.chance(250) {
            true => self.random.pick(&kinds).copied().unwrap_or(Behaviour::Good),
            false => Behaviour::Good,
        };
        self.world.behaviours.insert(self.newest, behaviour);
        self.say(&format!("release {} is published, {behaviour:?}", self.newest));
    }

    /// The running slot goes bad, while the other holds something good.
    fn decay(&mut self) -> Result<(), String> {
        let Power::Up { slot, confirmed: true } = self.world.power else { return Ok(()) };
        let Some(record) = self.world.record() else { return Ok(()) };
        let Some(release) = self.world.holds(slot) else { return Ok(()) };
        let other = record.slot(slot.other());
        let good = self
            .world
            .holds(slot.other())
            .is_some_and(|r| self.world.behaviour(r) == Behaviour::Good && r != release);
        let ready = other.content == Content::Sealed && other.fault == Fault::None && good;
        if !ready || record.trial.is_some() || !record.slot(slot).proven {
            return Ok(());
        }
        self.counts.decays += 1;
        let range = self.world.layout.slot(slot);
        let unit = u64::from(self.world.layout.shape.sector_size);
        match self.random.below(5) {
            4 => {
                self.say("the kernel image of the running slot decays");
                let (_, image) = library(release)?;
                let behind = image.slot.len() as u64 - 2 * 4096;
                let sector = (range.start + behind) / unit;
                self.world.shared.lock().disk.damage(sector, |bytes| bytes[99] ^= 4);
            }
            0 => {
                self.say("a block of the running slot decays");
                let sector = range.start / unit + 4096 / unit;
                self.world.shared.lock().disk.damage(sector, |bytes| bytes[99] ^= 4);
            }
            1 => {
                self.say("the running release begins to hang early");
                self.world.behaviours.insert(release, Behaviour::HangsEarly);
            }
            2 => {
                self.say("the running release begins to hang late");
                self.world.behaviours.insert(release, Behaviour::HangsLate);
            }
            _ => {
                self.say("the running release begins to fail its gate");
                self.world.behaviours.insert(release, Behaviour::FailsGate);
            }
        }
        self.stops_and_comes_up()
    }

    /// Operators, at any moment.
    fn people(&mut self) -> Result<(), String> {
        if !self.random.chance(15) {
            return Ok(());
        }
        self.counts.commands += 1;
        match self.random.below(6) {
            0 => {
                self.paused = !self.paused;
                self.say(if self.paused { "paused" } else { "resumed" });
                Ok(())
            }
            1 => {
                self.say("operator: apply");
                self.installs(by_hand(), true)
            }
            2 => {
                self.say("operator: retry");
                let leave = Leave { quarantined: true, direction: Direction::NotOlder };
                let served = self.served;
                self.held.remove(&served);
                self.cut_trials.remove(&served);
                self.installs(Order { goal: Goal::Arm, leave }, true)
            }
            3 | 4 => {
                self.say("operator: rollback");
                self.inside(|world| {
                    // Refusals are answers.
                    let _ = world.roll_back();
                });
                // Whatever the operator goes back to, is the operator's choice.
                self.held.clear();
                self.after(true)?;
                if self.world.power == Power::Off { Ok(()) } else { self.stops_and_comes_up() }
            }
            _ => {
                self.say("operator: reboot");
                self.stops_and_comes_up()
            }
        }
    }

    /// What `osupdated` does by itself under the policy `auto`, once a day.
    fn the_daemon_acts(&mut self) -> Result<(), String> {
        let Power::Up { slot, .. } = self.world.power else { return Ok(()) };
        if self.paused {
            return Ok(());
        }
        let Some(record) = self.world.record() else { return Ok(()) };
        if record.trial == Some(slot.other()) && record.tries > 0 {
            return self.stops_and_comes_up();
        }
        if !(record.confirmed_this_boot && record.default == slot) || self.registry_out > 0 {
            return Ok(());
        }
        let leave = Leave { quarantined: false, direction: Direction::Newer };
        self.installs(Order { goal: Goal::Arm, leave }, false)?;
        let armed = self.world.record().is_some_and(|record| record.trial == Some(slot.other()));
        if armed { self.stops_and_comes_up() } else { Ok(()) }
    }

    fn installs(&mut self, order: Order, by_operator: bool) -> Result<(), String> {
        if self.registry_out > 0 {
            return Ok(());
        }
        let Ok((_, image)) = library(self.served) else { return Err("no such image".into()) };
        let network = self.random.chance(200).then(|| 300 + self.random.below(9000) as usize);
        self.inside(|world| {
            // However it ends is the machine's to live with.
            let _ = world.install(&image, order, network);
        });
        self.after(true)?;
        if by_operator && self.world.power != Power::Off && self.random.chance(500) {
            return self.stops_and_comes_up();
        }
        Ok(())
    }

    /// Does something during which the power may go.
    fn inside(&mut self, work: impl FnOnce(&mut World)) {
        if self.random.chance(60) {
            let scale = [12, 60, 300, 900];
            let most = self.random.pick(&scale).copied().unwrap_or(12);
            let left = u32::try_from(self.random.below(most)).unwrap_or(0);
            self.world.shared.lock().disk.operations_left = Some(left);
        }
        work(&mut self.world);
        self.settle_power();
    }

    /// If the power has gone meanwhile, what was not flushed meets its fate.
    fn settle_power(&mut self) -> bool {
        let gone = self.world.is_cut();
        if gone {
            self.counts.cuts_inside += 1;
            self.counts.cuts += 1;
            self.world.power = Power::Off;
            // Where the firmware does not flush, a cut gives back the tries of starts that os-init
            // never reported.
            self.may_raise |= !self.world.firmware_flushes;
            self.say("POWER CUT in the middle");
        }
        self.world.shared.lock().disk.operations_left = None;
        if gone {
            self.lose_power();
        }
        gone
    }

    /// What was not flushed meets its fate.
    fn lose_power(&mut self) {
        let prevails = self.random.pick(&Fate::ALL).copied().unwrap_or(Fate::Lost);
        let random = &mut self.random;
        let mut machine = self.world.shared.lock();
        machine.disk.power_cut(|_| {
            if random.chance(600) {
                prevails
            } else {
                random.pick(&Fate::ALL).copied().unwrap_or(prevails)
            }
        });
        // The state file may be lost, too.
        if random.chance(100) {
            machine.file.content = None;
        }
    }

    fn cut(&mut self, when: &str) -> Result<(), String> {
        self.counts.cuts += 1;
        self.say(&format!("POWER CUT {when}"));
        self.lose_power();
        self.world.power = Power::Off;
        // An outage of any length: what ran was confirmed, or it is short.
        let confirmed = self.world.record().is_some_and(|record| record.confirmed_this_boot);
        let long = [5, 700, 3 * 86_400];
        let choices = if confirmed { &long[..] } else { &[5, 3 * 86_400][..] };
        self.world.clock_s += self.random.pick(choices).copied().unwrap_or(5);
        self.comes_up()
    }

    fn stops_and_comes_up(&mut self) -> Result<(), String> {
        self.inside(World::stop);
        self.comes_up()
    }

    /// Starts until it is up, with a power cut in some of the starts.
    fn comes_up(&mut self) -> Result<(), String> {
        let before = self.world.record();
        let storm = self.random.chance(20);
        let mut cuts_left = if storm { 3 + self.random.below(12) } else { self.random.below(2) };
        for _ in 0..STARTS_MAX + 16 {
            let cut = cuts_left > 0 && self.random.chance(if storm { 900 } else { 60 });
            if cut {
                let left = u32::try_from(self.random.below(80)).unwrap_or(0);
                self.world.shared.lock().disk.operations_left = Some(left);
            }
            let trial = self.world.peek(World::record).and_then(|r| r.trial.map(|t| (t, r.tries)));
            self.world.start()?;
            if self.settle_power() {
                cuts_left = cuts_left.saturating_sub(1);
                self.world.clock_s += if self.random.chance(500) { 5 } else { 4 * 86_400 };
                self.count_cut_trial(trial);
                self.after(false)?;
                continue;
            }
            self.after(false)?;
            if self.world.power != Power::Off {
                return self.check_up(before.as_ref());
            }
        }
        Err("it does not come up".into())
    }

    fn count_cut_trial(&mut self, before: Option<(Slot, u8)>) {
        let Some((slot, _)) = before else { return };
        if let Some(release) = self.world.holds(slot) {
            *self.cut_trials.entry(release).or_default() += 1;
        }
    }

    /// What must be true after every step.
    fn after(&mut self, may_arm: bool) -> Result<(), String> {
        self.may_raise |= may_arm;
        self.world.check_accesses()?;
        let record = self.world.record().ok_or("no record is left")?;
        let acknowledged = self.world.shared.lock().acknowledged;
        if record.generation < acknowledged {
            return Err(format!(
                "record {acknowledged} was acknowledged and is lost; the newest is {}",
                record.generation
            ));
        }
        let fuel = u16::from(record.tries) + u16::from(record.clean);
        if fuel > self.fuel && !self.may_raise {
            return Err(format!("tries and refunds rise from {} to {fuel}", self.fuel));
        }
        self.fuel = fuel;
        self.may_raise = false;
        for slot in Slot::ALL {
            self.check_slot(&record, slot)?;
        }
        Ok(())
    }

    fn check_slot(&mut self, record: &Record, slot: Slot) -> Result<(), String> {
        let entry = record.slot(slot);
        if entry.content != Content::Sealed {
            return Ok(());
        }
        let held = holds(record, &entry.digest);
        let on_trial = record.trial == Some(slot) && record.tries > 0;
        if on_trial && self.held.contains(&entry.release) {
            // The record has room for four; one that made room for others is forgotten.
            let forgotten = record.quarantined(&entry.digest).is_none()
                && record.quarantine.iter().all(Option::is_some);
            if !forgotten {
                return Err(format!("release {} was held and is on trial again", entry.release));
            }
            self.counts.forgotten += 1;
            self.held.remove(&entry.release);
        }
        match held {
            None | Some(Cause::Operator) => return Ok(()),
            Some(_) => {}
        }
        let cuts = self.cut_trials.get(&entry.release).copied().unwrap_or(0);
        let good = self.world.behaviour(entry.release) == Behaviour::Good;
        // Nine starts that never reported look like a release that never reports.
        if good && cuts < u32::from(TRIES) * 3 {
            return Err(format!("release {} is good and held, {cuts} cuts in it", entry.release));
        }
        self.held.insert(entry.release);
        Ok(())
    }

    /// What must be true of a machine that has come up.
    fn check_up(&mut self, before: Option<&Record>) -> Result<(), String> {
        let Power::Up { slot, confirmed } = self.world.power else {
            return Err(format!("no slot came up: {:?}", self.world.power));
        };
        let runs = self.world.holds(slot).ok_or("what runs is not whole")?;
        let Some(before) = before else { return Ok(()) };
        let tried = before.trial.filter(|_| before.tries > 0);
        if tried == Some(slot) && confirmed {
            self.counts.updates += 1;
        } else if tried.is_some() {
            self.counts.fallbacks += 1;
        }
        let default = before.default;
        let well = |slot: Slot| {
            before.slot(slot).proven
                && before.slot(slot).fault == Fault::None
                && self
                    .world
                    .holds(slot)
                    .is_some_and(|r| self.world.behaviour(r) == Behaviour::Good)
        };
        if well(default) && slot != default && tried != Some(slot) {
            return Err(format!("slot {default} is well, and slot {slot} was started unasked"));
        }
        let better = self.world.holds(slot.other()).filter(|release| {
            self.world.behaviour(*release) == Behaviour::Good && well(slot.other())
        });
        if !confirmed && better.is_some() {
            return Err(format!("release {runs} is degraded, and the other slot is well"));
        }
        Ok(())
    }

    /// A machine whose registry serves a good release ends up on it.
    fn check_reached(&mut self) -> Result<(), String> {
        let Power::Up { slot, confirmed } = self.world.power else { return Ok(()) };
        let Some(runs) = self.world.holds(slot) else { return Ok(()) };
        let (_, image) = library(self.served)?;
        let able = confirmed
            && !self.paused
            && self.registry_out == 0
            && self.served > runs
            && self.world.behaviour(self.served) == Behaviour::Good
            && !self.world.is_held(&image);
        self.ready_days = if able { self.ready_days + 1 } else { 0 };
        if self.ready_days > REACHED_DAYS {
            return Err(format!(
                "release {} is served for {} days and {runs} still runs",
                self.served, self.ready_days
            ));
        }
        Ok(())
    }
}
