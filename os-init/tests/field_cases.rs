//! Failures that other systems had in the field, on the product's own rules, places and record
//! keeper, over a disk in memory that loses what was not flushed.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use os_init::record::protocol::{Answer, Request};
use os_init::record::server::Keeper;
use partition_layout::boot_state::{
    Action, Blame, Choice, Event, ImageFacts, LoaderPlan, Start, factory, holds,
};
use partition_layout::disk::Disk as _;
use partition_layout::places::{self, PLACES, STRIDE, encode_identity};
use partition_layout::record::{Cause, Fault, Record};
use partition_layout::slot::Slot::{self, A, B};
use strict_disk::{Fate, StrictDisk};

const DISK_ID: [u8; 16] = [7; 16];
const V2: ImageFacts = ImageFacts { release: 2, secver: 0, digest: [2; 32] };

/// The record partition of a machine, and how often it was started.
struct Machine {
    disk: StrictDisk,
    clock_s: u64,
    starts: u64,
}

impl Machine {
    /// Release 1 confirmed in slot A, release 2 armed in slot B.
    fn armed() -> Self {
        let mut disk = StrictDisk::zeroed(512, 16 * STRIDE);
        disk.write(0, &encode_identity(DISK_ID, 512)).unwrap();
        let loaded = places::load(&mut disk).unwrap();
        let facts = ImageFacts { release: 1, secver: 0, digest: [1; 32] };
        places::store(&mut disk, &loaded, &factory(DISK_ID, facts)).unwrap();
        let mut machine = Self { disk, clock_s: 1_000_000, starts: 0 };
        machine.boot_confirmed(A);
        machine.all(A, &[Event::Disarm, Event::Seal(V2), Event::Arm]);
        machine
    }

    /// Release 2 confirmed in slot B, release 1 in slot A.
    fn updated() -> Self {
        let mut machine = Self::armed();
        machine.boot_confirmed(B);
        machine
    }

    /// What the loader does: the slot that it starts, or `None` when the power goes first.
    fn loader(&mut self) -> Option<Slot> {
        self.starts += 1;
        let loaded = places::load(&mut self.disk).ok()?;
        let (_, newest) = loaded.newest.as_ref()?;
        let mut plan = LoaderPlan::new(newest, Start { nonce: self.nonce(), rtc_s: self.clock_s });
        let Choice::Start { slot, record, .. } = plan.choose() else { panic!("no slot") };
        places::store(&mut self.disk, &loaded, &record).ok()?;
        Some(slot)
    }

    fn nonce(&self) -> [u8; 16] {
        u128::from(self.starts).to_le_bytes()
    }

    fn ask(&mut self, running: Slot, event: Event) -> Answer {
        Keeper::new(&mut self.disk, running).answer(Request::Apply(event))
    }

    fn done(&mut self, running: Slot, event: Event) -> Action {
        match self.ask(running, event) {
            Answer::Ok(action, _) => action,
            other => panic!("{event:?}: {other:?}"),
        }
    }

    fn all(&mut self, running: Slot, events: &[Event]) {
        for event in events {
            self.done(running, *event);
        }
    }

    fn os_init_starts(&mut self, running: Slot) {
        let nonce = self.nonce();
        self.all(running, &[Event::Started { nonce, watchdog: 0 }, Event::GateOpen]);
    }

    /// A start that goes well, of the slot that is expected.
    fn boot_confirmed(&mut self, expected: Slot) {
        assert_eq!(self.loader(), Some(expected));
        self.os_init_starts(expected);
        self.done(expected, Event::Confirm);
        self.clock_s += 60;
    }

    fn record(&mut self) -> Record {
        places::load(&mut self.disk).unwrap().newest.unwrap().1
    }

    fn damaged(&mut self) -> u8 {
        places::load(&mut self.disk).unwrap().damaged
    }
}

/// BR-1: the power goes at every step of the loader's write, with every fate of the sector that was
/// under way, and at every stage up to the gate, dozens of times in a row: a confirmed machine stays
/// where it is, nothing stands against it, and no trace is left after one good boot.
#[test]
fn cuts_before_the_gate_cost_a_confirmed_machine_nothing() {
    /// The loader reads the identity and eight places; it writes, flushes and reads back.
    const LOADER: u32 = 1 + PLACES as u32 + 3;
    let mut machine = Machine::updated();
    for fate in Fate::ALL {
        for operations in 0..LOADER {
            machine.disk.operations_left = Some(operations);
            assert_eq!(machine.loader(), None, "cut after {operations}");
            machine.disk.power_cut(|_| fate);
            machine.disk.power_on();
            machine.clock_s += 1;
        }
        for seconds in [1, 3, 5, 8, 29, 60] {
            assert_eq!(machine.loader(), Some(B));
            if seconds > 3 {
                machine.os_init_starts(B);
            }
            machine.disk.power_cut(|_| fate);
            machine.clock_s += seconds;
        }
    }
    machine.boot_confirmed(B);
    let record = machine.record();
    assert_eq!((record.default, record.trial, record.last.overdue), (B, None, 0));
    assert!(record.slot(B).proven && record.confirmed_this_boot);
    assert_eq!((record.slot(A).fault, record.slot(B).fault), (Fault::None, Fault::None));
    assert!(record.quarantine.iter().all(Option::is_none));
}

/// BR-3: a place whose tail is zeros, or one bit of whose checksum is wrong, be it the newest or an
/// older one: the machine boots by an intact one, tells of the damage, mends it, and an update goes
/// through.
#[test]
fn a_damaged_place_is_told_and_mended_and_the_update_works() {
    // From byte 256 on a record of a quiet life holds zeros anyway.
    let tail = |sector: &mut [u8]| sector[128..].fill(0);
    let checksum = |sector: &mut [u8]| sector[12] ^= 1;
    let damages: [fn(&mut [u8]); 2] = [tail, checksum];
    for damage in damages {
        for age in 0..PLACES as u64 {
            let mut machine = Machine::updated();
            // All eight places are in use.
            machine.boot_confirmed(B);
            let loaded = places::load(&mut machine.disk).unwrap();
            assert_eq!(loaded.damaged, 0);
            let newest = loaded.newest.unwrap().1.generation;
            let hit = loaded.generations.iter().position(|it| *it == Some(newest - age)).unwrap();
            machine.disk.damage(STRIDE * (hit as u64 + 1) / 512, damage);
            assert_eq!(machine.damaged(), 1, "the loader tells of it");
            assert_eq!(machine.loader(), Some(B));
            assert_eq!(machine.damaged(), 0, "it was written first");
            machine.os_init_starts(B);
            let facts = ImageFacts { release: 3, secver: 0, digest: [3; 32] };
            machine.all(B, &[Event::Confirm, Event::Disarm, Event::Seal(facts), Event::Arm]);
            machine.boot_confirmed(A);
            assert_eq!(machine.record().slot(A).release, 3);
        }
    }
}

/// BR-5: four polite reboots and a switch-off while the gate is still open: the trial goes on with
/// all its tries, nothing is held, and it is kept when it is well in the end.
#[test]
fn polite_reboots_during_a_trial_are_no_failed_boots() {
    let mut machine = Machine::armed();
    for stop in 0..5 {
        assert_eq!(machine.loader(), Some(B));
        assert_eq!(machine.record().tries, 2, "taken before the start");
        machine.os_init_starts(B);
        machine.done(B, Event::CleanStop);
        let record = machine.record();
        // What `status` shows: still on trial, with as many tries as before.
        assert_eq!((record.trial, record.tries, record.clean), (Some(B), 3, 7 - stop));
        assert_eq!(record.slot(B).fault, Fault::None);
        assert_eq!(holds(&record, &V2.digest), None);
        machine.clock_s += 120;
    }
    machine.boot_confirmed(B);
    assert_eq!(machine.record().default, B);
}

/// UP-4: a release that power cuts ended is told from one whose gate failed: the first may be tried
/// again by hand and by policy, the second after one command of a person.
#[test]
fn a_trial_that_cuts_ended_can_be_tried_again_and_a_failed_gate_needs_a_person() {
    let mut cut = Machine::armed();
    for _ in 0..3 {
        assert_eq!(cut.loader(), Some(B));
        cut.os_init_starts(B);
        cut.disk.power_cut(|_| Fate::Lost);
        cut.clock_s += 20;
    }
    cut.boot_confirmed(A);
    let noted = cut.record().quarantined(&V2.digest).unwrap();
    assert_eq!((noted.cause, noted.count), (Cause::TriesSpent, 1));
    assert_eq!(holds(&cut.record(), &V2.digest), None, "what a policy asks");
    cut.done(A, Event::Arm);
    cut.boot_confirmed(B);

    let mut failed = Machine::armed();
    assert_eq!(failed.loader(), Some(B));
    failed.os_init_starts(B);
    assert_eq!(failed.done(B, Event::GateFailed { blame: Blame::Slot }), Action::Reboot);
    failed.boot_confirmed(A);
    assert_eq!(holds(&failed.record(), &V2.digest), Some(Cause::Gate));
    assert_ne!(Cause::Gate.words(), Cause::TriesSpent.words());
    assert!(matches!(failed.ask(A, Event::Arm), Answer::Refused(_)));
    failed.all(A, &[Event::Force { digest: V2.digest }, Event::Arm]);
    failed.boot_confirmed(B);
}
