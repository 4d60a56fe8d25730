//! A start of the machine, from the loader to the health gate.

use std::fmt::Arguments;

use loader::session::{Boot, Hands, Runs, Session};
use loader::slots::Slots;
use os_init::find_disk::recognise;
use os_init::state::{UNFORMATTED, clear_mark, table_of};
use partition_layout::boot_state::{Action, Blame, Event, OVERDUE_MAX};
use partition_layout::boot_variable::BootVariable;
use partition_layout::disk::Disk as _;
use partition_layout::guid;
use partition_layout::loader_plan::Start;
use partition_layout::record::{Cause, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::Trailer;

use crate::machine::Shared;
use crate::world::{Behaviour, Power, World};

/// A healthy boot takes so many seconds.
const BOOT_S: u64 = 60;
/// A hang before os-init reports is ended after so many seconds by the watchdog that the loader armed.
const EARLY_HANG_S: u64 = 125;
/// A hang after os-init reported is ended after so many seconds by the watchdog that os-init armed.
const WATCHDOG_S: u64 = 100;
/// What a watchdog says after it has ended a hang.
const WATCHDOG_STATUS: u32 = 32;
/// A hang that no watchdog ends: a person comes after so many seconds.
const LATE_HANG_S: u64 = 3000;
/// Lines of the loader in one boot; it has a handful of things to try.
const LINES_MAX: usize = 60;
/// Starts in a row without coming up, after which a machine is called lost.
pub const STARTS_MAX: u32 = 16;

struct Firmware<'a> {
    world: &'a World,
    lines: Vec<String>,
    booted: Option<(Target, BootVariable)>,
}

impl Hands<Shared> for Firmware<'_> {
    type Memory = Vec<u8>;

    fn memory(&mut self, bytes: usize) -> Option<Vec<u8>> {
        Some(vec![0; bytes])
    }

    fn say(&mut self, line: Arguments) {
        self.lines.push(format!("loader: {line}"));
        assert!(self.lines.len() < LINES_MAX, "the loader does not end: {:#?}", self.lines);
    }

    fn may(&self, _: Target) -> bool {
        true
    }

    fn begins(&mut self, _: Target) {}

    fn start(
        &mut self,
        slot: Slot,
        _: Vec<u8>,
        trailer: &Trailer,
        boot: &Boot<'_, Shared>,
    ) -> Result<Runs, Cause> {
        let cause = match self.world.behaviour(trailer.release) {
            Behaviour::Refused => Cause::Refused,
            Behaviour::Returns => Cause::Returned,
            _ => {
                self.lines.push(format!("slot {slot} starts, release {}", trailer.release));
                self.booted = Some((Target::Slot(slot), boot.variable(0, 0)));
                return Ok(Runs);
            }
        };
        self.lines.push(format!("slot {slot} does not start: {}", cause.words()));
        Err(cause)
    }

    fn recover(&mut self, boot: &Boot<'_, Shared>) -> Option<Runs> {
        self.lines.push("recovery starts".into());
        self.booted = Some((Target::Recovery, boot.variable(0, 0)));
        Some(Runs)
    }
}

impl World {
    /// Switches the machine on once. Afterwards it is up, or off again and would start once more.
    ///
    /// # Errors
    /// What must never happen, in words.
    pub fn start(&mut self) -> Result<(), String> {
        self.starts += 1;
        self.clock_s += 20;
        self.allow(&[]);
        self.shared.lock().disk.forbid_nothing();
        self.shared.lock().disk.flush_lies = !self.firmware_flushes;
        let booted = self.run_loader();
        self.shared.lock().disk.flush_lies = false;
        let (target, variable) = match booted {
            Some(booted) => booted,
            None => {
                self.power = Power::Dead;
                self.say("nothing could be started");
                return Ok(());
            }
        };
        match target {
            Target::Recovery => self.power = Power::Recovery,
            Target::Slot(slot) => self.run_slot(slot, &variable)?,
        }
        self.check_accesses()
    }

    /// Starts until it is up.
    ///
    /// # Errors
    /// What must never happen, or that it does not come up.
    pub fn come_up(&mut self) -> Result<(), String> {
        for _ in 0..STARTS_MAX {
            self.start()?;
            if self.power != Power::Off {
                return Ok(());
            }
        }
        Err(format!("not up after {STARTS_MAX} starts"))
    }

    /// Whether anybody did with the disk what nobody may.
    ///
    /// # Errors
    /// The first such access.
    pub fn check_accesses(&self) -> Result<(), String> {
        self.violations()
            .first()
            .map_or(Ok(()), |what| Err(format!("the disk was misused: {what}")))
    }

    fn run_loader(&mut self) -> Option<(Target, BootVariable)> {
        let mut nonce = [0xAB; 16];
        nonce[..8].copy_from_slice(&self.starts.to_le_bytes());
        let start = Start { nonce, rtc_s: self.clock_s };
        let (mut slots, _) = Slots::read(self.shared.clone());
        let loaded = slots.load_record().and_then(Result::ok);
        let mut firmware = Firmware { world: self, lines: Vec::new(), booted: None };
        // What it returns says the same as whether anything runs.
        let _ = Session::new(&mut slots, &mut firmware, loaded.as_ref(), start).by_rules();
        let Firmware { lines, booted, .. } = firmware;
        self.trail.extend(lines);
        // The loader acts on what it stored: from here on it must not be lost, if its flush works.
        if let Some((_, variable)) = &booted
            && variable.record_written
            && self.firmware_flushes
        {
            let mut machine = self.shared.lock();
            machine.acknowledged = machine.acknowledged.max(variable.generation);
        }
        booted
    }

    fn run_slot(&mut self, slot: Slot, variable: &BootVariable) -> Result<(), String> {
        let range = self.layout.slot(slot);
        self.shared.lock().disk.forbid_writes(range, "the running slot is never written");
        let watchdog = std::mem::take(&mut self.watchdog_status);
        let release = self.peek(|world| world.holds(slot));
        let behaviour = release.map(|release| self.behaviour(release));
        if behaviour == Some(Behaviour::HangsEarly) {
            self.watchdog_status = if self.has_watchdog { WATCHDOG_STATUS } else { 0 };
            return self.goes_down("hangs", EARLY_HANG_S);
        }
        if behaviour == Some(Behaviour::Panics) {
            return self.goes_down("panics", 15);
        }
        let Some((table, record)) = recognise(self.shared.clone(), variable) else {
            return self.goes_down("os-init does not find the disk that booted", 70);
        };
        if release.is_none() {
            self.tell(slot, Event::VerityError).ok();
            return self.goes_down("dm-verity finds a corrupted block", 15);
        }
        let fits = self.peek(|world| world.record().is_none_or(|now| now == record));
        // With a foreign table the record that is ours to read here is not what the machine has.
        let ours = table.find(guid::RECORD) == self.layout.table.find(guid::RECORD);
        if !fits && ours && !self.is_cut() {
            return Err("os-init took another record than the newest".into());
        }
        self.bring_up_state();
        let started = self.tell(slot, Event::Started { nonce: variable.nonce, watchdog });
        if started.is_ok_and(|(_, record)| record.last.overdue >= OVERDUE_MAX) {
            let told = self.tell(slot, Event::Overdue);
            if matches!(told, Ok((Action::Reboot, _))) {
                return self.goes_down("reboots", 5);
            }
        }
        self.tell(slot, Event::GateOpen).ok();
        if self.gate_waits {
            self.power = Power::Up { slot, confirmed: false };
            return Ok(());
        }
        match behaviour {
            Some(Behaviour::HangsLate) if self.has_watchdog => {
                self.watchdog_status = WATCHDOG_STATUS;
                self.goes_down("hangs, until the watchdog ends it", WATCHDOG_S)
            }
            Some(Behaviour::HangsLate) => self.goes_down("hangs", LATE_HANG_S),
            Some(Behaviour::FailsGate) => {
                self.clock_s += 300;
                let told = self.tell(slot, Event::GateFailed { blame: Blame::Slot });
                if matches!(told, Ok((Action::Reboot, _))) {
                    return self.goes_down("reboots", 5);
                }
                self.power = Power::Up { slot, confirmed: false };
                Ok(())
            }
            _ => {
                self.clock_s += BOOT_S;
                let told = self.tell(slot, Event::Confirm);
                let confirmed = matches!(told, Ok((Action::None, _)));
                self.power = Power::Up { slot, confirmed };
                Ok(())
            }
        }
    }

    fn goes_down(&mut self, why: &str, seconds: u64) -> Result<(), String> {
        self.say(why);
        self.clock_s += seconds;
        self.power = Power::Off;
        Ok(())
    }

    /// The state partition, as os-init makes it at first boot and grows it later.
    fn bring_up_state(&mut self) {
        let unit = u64::from(self.layout.shape.sector_size);
        let end = self.shared.size();
        // Header and entries of either copy, nothing else: what would be formatted is not simulated.
        let table = unit + 128 * 128;
        self.allow(&[unit..unit + table, end.saturating_sub(table)..end]);
        let found = table_of(&mut self.shared.clone(), || Ok([0x5A; 16]));
        match found {
            Ok(mut found) => {
                let marked = found.table.entries.iter().find(|(_, entry)| {
                    entry.kind == guid::STATE && entry.attributes & UNFORMATTED != 0
                });
                if let Some((number, _)) = marked.cloned() {
                    self.say("the state partition is formatted");
                    if let Err(why) = clear_mark(&mut self.shared.clone(), &mut found.table, number)
                    {
                        self.say(format!("state: {why}"));
                    }
                }
            }
            Err(why) => self.say(format!("state: {why}")),
        }
        self.allow(&[]);
    }

    /// An orderly reboot, as far as the stop.
    pub fn stop(&mut self) {
        if let Power::Up { slot, .. } = self.power {
            self.tell(slot, Event::CleanStop).ok();
        }
        self.power = Power::Off;
        self.clock_s += 10;
    }
}
