//! The rows of the transition table, one test each, and what holds for any record at all.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

mod machine;

use machine::{all, armed, boot, done, facts, plan, refused, start_at, updated};
use partition_layout::boot_state::{
    Action, Blame, Choice, Event, LoaderPlan, OVERDUE_MAX, Reason, Refused, Step, factory, holds,
    may_overwrite, step,
};
use partition_layout::record::{Cause, Content, Fault, Record, Stage, Target};
use partition_layout::slot::Slot::{self, A, B};
use proptest::prelude::*;

#[test]
fn a_trial_takes_a_try_before_it_starts_and_must_be_durable() {
    let Choice::Start { slot, record, must_be_durable } = plan(&armed()).choose() else { panic!() };
    assert_eq!((slot, record.tries, record.clean, must_be_durable), (B, 2, 8, true));
    assert_eq!(record.last.stage, Stage::Loader);
    assert_eq!(record.nonce, [7; 16]);
    assert!(!record.confirmed_this_boot);
}

#[test]
fn a_start_by_hand_takes_no_try_and_changes_no_choice() {
    let mut plan = plan(&armed());
    let record = plan.by_hand(Target::Slot(B));
    assert_eq!((record.trial, record.tries, record.nonce), (Some(B), 3, [7; 16]));
    assert_eq!(record.slots, armed().slots);
    assert_eq!(
        (plan.by_hand(Target::Recovery).default, plan.reasons()),
        (A, &[Reason::ByHand; 2][..])
    );
}

#[test]
fn a_spent_trial_ranks_the_slot_and_goes_on_in_the_same_boot() {
    let spent = Record { tries: 0, ..armed() };
    let mut plan = plan(&spent);
    let Choice::Start { slot, record, .. } = plan.choose() else { panic!() };
    assert_eq!((slot, record.trial, record.slot(B).fault), (A, None, Fault::Spent));
    assert_eq!(plan.reasons(), [Reason::TrialSpent(B)]);
    assert_eq!(record.slot(B).content, Content::Sealed, "ranked, not erased");
}

#[test]
fn where_the_record_cannot_be_written_the_trial_is_left_and_keeps_its_tries() {
    let mut plan = plan(&armed());
    assert!(matches!(plan.choose(), Choice::Start { slot: B, must_be_durable: true, .. }));
    plan.not_writable();
    let Choice::Start { slot, record, must_be_durable } = plan.choose() else { panic!() };
    assert_eq!((slot, must_be_durable), (A, false));
    assert_eq!((record.trial, record.tries), (Some(B), 3));
    // The start of A is not durable either: that costs nothing more.
    plan.not_writable();
    plan.load_failed(A, Cause::Unreadable);
    let Choice::Recovery { record } = plan.choose() else { panic!() };
    assert_eq!((record.trial, record.tries), (Some(B), 3));
    assert_eq!(plan.reasons(), [Reason::NotWritable, Reason::LoadFailed(A, Cause::Unreadable)]);
}

#[test]
fn a_slot_that_does_not_load_is_passed_in_the_same_boot_then_recovery_then_firmware() {
    let mut plan = plan(&armed());
    let _ = plan.choose();
    plan.load_failed(B, Cause::Refused);
    let Choice::Start { slot: A, record, .. } = plan.choose() else { panic!() };
    assert_eq!((record.trial, record.slot(B).fault), (None, Fault::Load));
    plan.load_failed(A, Cause::Unreadable);
    assert!(matches!(plan.choose(), Choice::Recovery { .. }));
    assert_eq!(plan.choose(), Choice::Firmware);
    // All are faulty: the next boot tries them again.
    assert_eq!(boot(&record).0, A);
}

#[test]
fn what_was_seen_of_a_slot_weighs_more_than_that_it_does_not_load() {
    let failed = done(&boot(&armed()).1, B, Event::GateFailed { blame: Blame::Slot });
    let mut plan = plan(&failed);
    plan.load_failed(B, Cause::Unreadable);
    let Choice::Start { slot: A, record, .. } = plan.choose() else { panic!() };
    assert_eq!((record.slot(B).fault, record.slot(B).cause), (Fault::Evidence, Cause::Gate));
    // Of two load faults the last one is told, and so with a spent trial.
    let spent = Record { tries: 0, ..armed() };
    let mut plan = LoaderPlan::new(&spent, start_at(0));
    let _ = plan.choose();
    plan.load_failed(B, Cause::Refused);
    plan.load_failed(B, Cause::Unreadable);
    let Choice::Start { record, .. } = plan.choose() else { panic!() };
    assert_eq!((record.slot(B).fault, record.slot(B).cause), (Fault::Load, Cause::Unreadable));
}

#[test]
fn without_a_record_the_higher_release_gets_one_try_and_the_other_is_the_default() {
    for (trailers, first, second) in [
        ([Some(facts(1)), Some(facts(2))], B, Some(A)),
        ([Some(facts(3)), Some(facts(2))], A, Some(B)),
        ([Some(facts(3)), None], A, None),
        ([None, Some(facts(3))], B, None),
        // Of two that are equal, the first.
        ([Some(facts(2)), Some(facts(2))], A, Some(B)),
        // Both trailers unreadable, perhaps for a moment: both are tried.
        ([None, None], A, Some(B)),
    ] {
        let mut plan = LoaderPlan::rebuild([1; 16], trailers, start_at(0));
        assert_eq!(plan.reasons(), [Reason::Rebuilt]);
        let Choice::Start { slot, record, .. } = plan.choose() else { panic!() };
        assert_eq!((slot, record.tries), (first, 0), "{trailers:?}");
        assert!(!record.slot(A).proven && !record.slot(B).proven);
        plan.load_failed(slot, Cause::Unreadable);
        match (plan.choose(), second) {
            (Choice::Start { slot, .. }, Some(second)) => assert_eq!(slot, second),
            (Choice::Recovery { .. }, None) => {}
            other => panic!("{other:?}"),
        }
    }
    let unread = LoaderPlan::rebuild([1; 16], [None, None], start_at(0)).choose();
    let Choice::Start { record, .. } = unread else { panic!() };
    for slot in [A, B] {
        let told = record.slot(slot);
        assert_eq!((told.fault, told.cause), (Fault::Load, Cause::Unreadable));
    }
}

#[test]
fn of_two_equally_faulty_slots_the_one_that_never_opened_its_gate_stands_back() {
    let chosen = |stage: Stage| {
        let mut record = updated();
        for slot in [A, B] {
            record.slot_mut(slot).fault = Fault::Evidence;
        }
        record.last.target = Some(Target::Slot(B));
        record.last.stage = stage;
        boot(&record).0
    };
    assert_eq!((chosen(Stage::Loader), chosen(Stage::Init)), (A, A));
    assert_eq!((chosen(Stage::Gate), chosen(Stage::Confirmed)), (B, B));
}

#[test]
fn confirm_makes_the_running_slot_the_default_and_clears_what_was_against_it() {
    let record = updated();
    assert_eq!((record.default, record.trial, record.tries, record.clean), (B, None, 0, 0));
    assert!(record.slot(B).proven && record.confirmed_this_boot);
    assert_eq!(record.slot(A).content, Content::Sealed);
    // Twice is once.
    let step = step(&record, B, Event::Confirm).unwrap();
    assert_eq!(step, Step { record, action: Action::None });
}

#[test]
fn a_failed_gate_is_evidence_and_the_old_slot_counts_it_only_once_it_is_well_itself() {
    let trial = boot(&armed()).1;
    let failed = step(&trial, B, Event::GateFailed { blame: Blame::Slot }).unwrap();
    assert_eq!(failed.action, Action::Reboot);
    assert_eq!((failed.record.trial, failed.record.slot(B).fault), (None, Fault::Evidence));
    assert_eq!(holds(&failed.record, &[2; 32]), None);
    let (slot, record) = boot(&failed.record);
    assert_eq!(slot, A);
    let record = done(&record, A, Event::Confirm);
    assert_eq!(holds(&record, &[2; 32]), Some(Cause::Gate));
    assert_eq!(refused(&record, A, Event::Arm), Refused::Quarantined(Cause::Gate));
    assert_eq!(refused(&record, A, Event::Rollback), Refused::Quarantined(Cause::Gate));
    // A confirm in every later boot counts nothing twice.
    let later = done(&boot(&record).1, A, Event::Confirm);
    assert_eq!(later.quarantined(&[2; 32]).map(|entry| entry.count), Some(1));
    let forced = done(&record, A, Event::Force { digest: [2; 32] });
    assert_eq!(done(&forced, A, Event::Arm).trial, Some(B));
}

#[test]
fn two_slots_with_evidence_do_not_flip() {
    let failed = done(&boot(&updated()).1, B, Event::GateFailed { blame: Blame::Slot });
    let (slot, record) = boot(&failed);
    assert_eq!(slot, A);
    let both = step(&record, A, Event::GateFailed { blame: Blame::Slot }).unwrap();
    assert_eq!(both.action, Action::StayDegraded);
    assert_eq!(both.record.slot(A).fault, Fault::Evidence);
}

#[test]
fn a_slot_that_the_loader_came_back_to_stays_up() {
    // A does not load and B fails its gate: no reboot changes that.
    let mut plan = plan(&boot(&armed()).1);
    plan.load_failed(A, Cause::Refused);
    let Choice::Start { slot: B, record, .. } = plan.choose() else { panic!() };
    let first = step(&record, B, Event::GateFailed { blame: Blame::Slot }).unwrap();
    assert_eq!(first.action, Action::Reboot, "A may load this time");
    let second = step(&boot(&first.record).1, B, Event::GateFailed { blame: Blame::Slot }).unwrap();
    assert_eq!(second.action, Action::StayDegraded);
}

#[test]
fn the_state_partitions_fault_condemns_nobody() {
    let trial = boot(&armed()).1;
    let step = step(&trial, B, Event::GateFailed { blame: Blame::State }).unwrap();
    assert_eq!(step, Step { record: trial, action: Action::StayDegraded });
}

#[test]
fn a_verity_error_sends_a_proven_slot_away_but_not_its_release() {
    let record = updated();
    let step = step(&record, B, Event::VerityError).unwrap();
    assert_eq!((step.action, step.record.slot(B).cause), (Action::Reboot, Cause::Verity));
    let record = done(&boot(&step.record).1, A, Event::Confirm);
    assert_eq!(holds(&record, &[2; 32]), None, "the disk's fault");
}

#[test]
fn an_unproven_default_that_does_not_come_up_stands_back() {
    let rebuilt = LoaderPlan::rebuild([1; 16], [Some(facts(1)), Some(facts(2))], start_at(5));
    let mut plan = rebuilt.clone();
    let Choice::Start { slot: B, record, .. } = plan.choose() else { panic!() };
    // B's only try is spent, then A, the unproven default, hangs, then B.
    let (slot, record) = boot(&record);
    assert_eq!((slot, record.slot(B).fault), (A, Fault::Spent));
    let (slot, record) = boot(&record);
    assert_eq!(
        (slot, record.slot(A).fault, record.slot(A).cause),
        (B, Fault::Evidence, Cause::Hang)
    );
    // And in turn from then on.
    let (slot, record) = boot(&record);
    assert_eq!((slot, record.slot(B).fault), (A, Fault::Evidence));
    assert_eq!(boot(&record).0, B);
}

#[test]
fn power_cuts_do_nothing_to_a_proven_slot() {
    // The field's case: resets at 1 to 8 seconds, before the gate, again and again.
    let mut record = updated();
    let mut clock_s = 5_000;
    for seconds in [1, 3, 5, 8, 1, 3, 5, 8, 100, 100, 100] {
        let Choice::Start { slot, record: next, .. } =
            LoaderPlan::new(&record, start_at(clock_s)).choose()
        else {
            panic!()
        };
        assert_eq!((slot, next.slot(B).fault, next.last.overdue), (B, Fault::None, 0));
        record = next;
        clock_s += seconds;
    }
    assert_eq!(record.default, B);
}

/// A watchdog ends a hang in a minute: the clock alone would take that for a power cut.
#[test]
fn three_hangs_that_the_watchdog_ended_are_evidence_also_when_they_were_short() {
    let hangs = |mut record: Record, starts: u8| {
        for _ in 0..starts {
            record = boot(&record).1;
            let nonce = record.nonce;
            // Told twice, as by a helper that was started again: one start all the same.
            record = done(&record, B, Event::Started { nonce, watchdog: 32 });
            record = done(&record, B, Event::Started { nonce, watchdog: 32 });
        }
        record
    };
    let first = done(&boot(&updated()).1, B, Event::Started { nonce: [7; 16], watchdog: 0 });
    let hung = hangs(first.clone(), OVERDUE_MAX);
    assert_eq!(hung.last.overdue, OVERDUE_MAX, "os-init tells Event::Overdue now");
    let left = step(&hung, B, Event::Overdue).unwrap();
    assert_eq!((left.action, boot(&left.record).0), (Action::Reboot, A));
    // A hang of a machine that was well before is forgotten once it is well again.
    let once = done(&hangs(first, OVERDUE_MAX - 1), B, Event::Confirm);
    assert_eq!(once.last.overdue, 0);
    assert_eq!(hangs(once, 1).last.overdue, 1);
}

#[test]
fn three_overdue_starts_in_a_row_are_evidence_and_absurd_clocks_are_not() {
    let overdue = |waits: &[u64], stage: Stage| {
        let mut record = updated();
        let mut clock_s = 5_000;
        let mut slots = Vec::new();
        for wait in waits {
            let choice = LoaderPlan::new(&record, start_at(clock_s)).choose();
            let Choice::Start { slot, record: next, .. } = choice else { panic!() };
            slots.push(slot);
            record = next;
            record.last.stage = stage;
            clock_s = clock_s.wrapping_add(*wait);
        }
        slots
    };
    assert_eq!(overdue(&[120, 120, 120, 0], Stage::Loader), [B, B, B, A]);
    assert_eq!(overdue(&[700, 5, 700, 700, 0], Stage::Init), [B, B, B, B, A]);
    assert_eq!(overdue(&[120, 120, 120, 0], Stage::Init), [B; 4], "os-init may be slow");
    assert_eq!(overdue(&[86_399, 86_399, 86_399, 0], Stage::Loader), [B, B, B, A], "not a day");
    assert_eq!(overdue(&[86_400, 86_400, 86_400, 0], Stage::Loader), [B; 4], "it was off");
    assert_eq!(overdue(&[u64::MAX - 900; 4], Stage::Loader), [B; 4], "the clock ran backwards");
    assert_eq!(overdue(&[700, 700, 700, 0], Stage::Clean), [B; 4]);
}

#[test]
fn clean_stops_refund_at_most_eight_tries_and_once_a_boot() {
    let mut record = armed();
    let mut starts = 0;
    while record.trial == Some(B) {
        let (slot, next) = boot(&record);
        if slot == A {
            break;
        }
        starts += 1;
        assert!(starts <= 3 + 8, "for ever");
        record = done(&next, B, Event::CleanStop);
        let twice = done(&record, B, Event::CleanStop);
        assert_eq!(twice, record);
    }
    assert_eq!(starts, 3 + 8);
}

#[test]
fn only_a_slot_confirmed_in_this_boot_disarms_a_way_back() {
    let next_boot = boot(&updated()).1;
    assert_eq!(refused(&next_boot, B, Event::Disarm), Refused::NotConfirmed);
    assert_eq!(refused(&boot(&armed()).1, B, Event::Disarm), Refused::OnTrial);
    // The loader could not write: the record still says that an earlier boot was confirmed.
    let stale = updated();
    let started = done(&stale, B, Event::Started { nonce: [9; 16], watchdog: 4 });
    assert_eq!(refused(&started, B, Event::Disarm), Refused::NotConfirmed);
    assert_eq!((started.last.watchdog, started.last.target), (4, Some(Target::Slot(B))));
    assert_eq!(started.nonce, [9; 16], "a second word of this boot finds it begun");
    // The same for a confirmation in the other slot.
    let fallback =
        all(&stale, A, &[Event::Started { nonce: [9; 16], watchdog: 0 }, Event::Confirm]);
    assert_eq!(fallback.default, A);
    // With the loader's own nonce it is the same boot.
    let again = done(&stale, B, Event::Started { nonce: [7; 16], watchdog: 0 });
    assert!(done(&again, B, Event::Disarm).slot(A).content == Content::Writing);
}

#[test]
fn what_is_no_way_back_may_be_overwritten_by_a_machine_that_cannot_confirm() {
    // A fresh machine whose gate has failed: nothing is in the other slot.
    let failed = Event::GateFailed { blame: Blame::Slot };
    let alone = done(&boot(&factory([1; 16], facts(1))).1, A, failed);
    assert_eq!(may_overwrite(&alone, A), Ok(()));
    let armed = all(&alone, A, &[Event::Disarm, Event::Seal(facts(2)), Event::Arm]);
    assert_eq!((armed.trial, armed.default), (Some(B), A));
    // With something in it, it may be what works.
    let sealed = all(&alone, A, &[Event::Disarm, Event::Seal(facts(2))]);
    assert_eq!(refused(&sealed, A, Event::Disarm), Refused::NotConfirmed);
    // Both have failed: the one that runs can be logged into, the other cannot do better.
    let spent = done(&boot(&armed).1, B, failed);
    let back = done(&boot(&spent).1, A, failed);
    assert_eq!(back.slot(B).fault, Fault::Evidence);
    assert_eq!(done(&back, A, Event::Disarm).slot(B).content, Content::Writing);
    // Of the state partition's fault nothing follows for the other slot.
    let confirmed = all(&boot(&updated()).1, B, &[Event::GateFailed { blame: Blame::State }]);
    assert_eq!(refused(&confirmed, B, Event::Disarm), Refused::NotConfirmed);
}

#[test]
fn a_trial_whose_try_the_loader_could_not_write_pays_for_it_once_it_runs() {
    let reports = |record: &Record| done(record, B, Event::Started { nonce: [9; 16], watchdog: 0 });
    let started = reports(&armed());
    assert_eq!((started.trial, started.tries), (Some(B), 2));
    assert_eq!(reports(&started).tries, 2, "once a boot");
    // One that was written is paid for already; the other slot pays for nothing.
    let written = boot(&armed()).1;
    let same = done(&written, B, Event::Started { nonce: written.nonce, watchdog: 0 });
    assert_eq!(same.tries, 2);
    assert_eq!(done(&armed(), A, Event::Started { nonce: [9; 16], watchdog: 0 }).tries, 3);
}

#[test]
fn disarm_seal_and_arm_come_in_this_order() {
    let record = updated();
    assert_eq!(refused(&record, B, Event::Seal(facts(3))), Refused::NotDisarmed);
    let disarmed = done(&record, B, Event::Disarm);
    assert_eq!(disarmed.slot(A).content, Content::Writing);
    assert_eq!(refused(&disarmed, B, Event::Arm), Refused::NotSealed);
    assert_eq!(refused(&disarmed, B, Event::Rollback), Refused::NotSealed);
    let sealed = done(&disarmed, B, Event::Seal(facts(3)));
    assert_eq!((sealed.trial, sealed.slot(A).release), (None, 3), "sealed is not armed");
    let armed = done(&sealed, B, Event::Arm);
    assert_eq!((armed.trial, armed.tries, armed.clean), (Some(A), 3, 8));
    // Twice is once: a trial under way is not filled up.
    let under_way = Record { tries: 1, clean: 2, ..armed.clone() };
    assert_eq!(done(&under_way, B, Event::Arm), under_way);
    // A newer release may replace one that is only armed.
    assert_eq!(done(&armed, B, Event::Disarm).trial, None);
}

#[test]
fn a_rollback_ends_a_trial_or_goes_to_the_other_slot_and_holds_what_it_leaves() {
    let trial = step(&boot(&armed()).1, B, Event::Rollback).unwrap();
    assert_eq!((trial.action, trial.record.trial), (Action::Reboot, None));
    // A gate that passes before the reboot does not undo it, and a power cut is no hang.
    let passed = step(&trial.record, B, Event::Confirm).unwrap();
    assert_eq!((passed.action, &passed.record), (Action::Reboot, &trial.record));
    let (slot, record) = boot(&trial.record);
    assert_eq!((slot, record.slot(B).fault), (A, Fault::None));
    let record = done(&record, A, Event::Confirm);
    assert_eq!(holds(&record, &[2; 32]), Some(Cause::Operator));
    let only_armed = step(&armed(), A, Event::Rollback).unwrap();
    assert_eq!((only_armed.action, only_armed.record.trial), (Action::None, None));
    assert_eq!(holds(&only_armed.record, &[2; 32]), Some(Cause::Operator));
    let back = step(&updated(), B, Event::Rollback).unwrap();
    assert_eq!((back.action, back.record.trial, back.record.default), (Action::Reboot, Some(A), B));
    assert_eq!(holds(&back.record, &[2; 32]), Some(Cause::Operator));
    // Forward again by the same command.
    let record = done(&boot(&back.record).1, A, Event::Confirm);
    assert_eq!(refused(&record, A, Event::Arm), Refused::Quarantined(Cause::Operator));
    assert_eq!(done(&record, A, Event::Rollback).trial, Some(B));
}

#[test]
fn the_floor_holds_older_security_versions_back_and_never_the_running_one() {
    let record = updated();
    assert_eq!(refused(&record, B, Event::RaiseFloor { secver: 3 }), Refused::AboveRunning);
    let raised = done(&record, B, Event::RaiseFloor { secver: 2 });
    assert_eq!(done(&raised, B, Event::RaiseFloor { secver: 1 }).floor, 2, "never lowered");
    assert_eq!(refused(&raised, B, Event::Arm), Refused::BelowFloor);
    assert_eq!(refused(&raised, B, Event::Rollback), Refused::BelowFloor);
}

#[test]
fn reboots_are_asked_for_three_times() {
    let mut record = armed();
    for _ in 0..3 {
        let asked = step(&record, A, Event::AskReboot).unwrap();
        assert_eq!(asked.action, Action::Reboot);
        // A confirm between does not start the count anew.
        record = done(&boot(&asked.record).1, A, Event::Confirm);
    }
    assert_eq!(refused(&record, A, Event::AskReboot), Refused::AsksSpent);
}

#[test]
fn a_scrub_clears_a_load_fault_and_nothing_worse() {
    let mut record = updated();
    record.slots[0].fault = Fault::Load;
    assert_eq!(done(&record, B, Event::Scrubbed).slot(A).fault, Fault::None);
    record.slots[0].fault = Fault::Evidence;
    assert_eq!(done(&record, B, Event::Scrubbed).slot(A).fault, Fault::Evidence);
}

#[test]
fn a_release_is_held_after_three_spent_trials_and_the_oldest_entry_makes_room() {
    let mut record = armed();
    for round in 1..=3 {
        for _ in 0..3 {
            record = boot(&record).1;
        }
        record = done(&boot(&record).1, A, Event::Confirm);
        record.generation += 1;
        assert_eq!(record.quarantined(&[2; 32]).map(|entry| entry.count), Some(round));
        if round < 3 {
            record = done(&record, A, Event::Arm);
        }
    }
    assert_eq!(refused(&record, A, Event::Arm), Refused::Quarantined(Cause::TriesSpent));
    for release in 10..15 {
        record.generation += 1;
        let events = [Event::Disarm, Event::Seal(facts(release)), Event::Arm, Event::Rollback];
        record = all(&record, A, &events);
    }
    // Counted three times: it stays; of the others the first two made room.
    let held: Vec<bool> =
        [2, 10, 11, 12, 13, 14].map(|r| holds(&record, &[r; 32]).is_some()).to_vec();
    assert_eq!(held, [true, false, false, true, true, true]);
}

fn any_record() -> impl Strategy<Value = Record> {
    (prop::collection::vec(any::<u8>(), 512), prop::collection::vec(0_u8..6, 40)).prop_map(
        |(mut bytes, small)| {
            bytes[..12].copy_from_slice(b"BASCREC1\x01\x00\x00\x02");
            // Mostly values that mean something.
            for (at, value) in (56..62).chain(64..67).chain(88..92).chain(152..156).zip(&small) {
                bytes[at] = *value;
            }
            bytes[56] = bytes[56] % 2 + 1;
            bytes[23] = 0;
            bytes[12..16].fill(0);
            let crc = partition_layout::bytes::crc32c(&[&bytes]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            Record::decode(&bytes).unwrap()
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|nonce| Event::Started { nonce, watchdog: 1 }),
        Just(Event::GateOpen),
        Just(Event::Confirm),
        Just(Event::GateFailed { blame: Blame::Slot }),
        Just(Event::GateFailed { blame: Blame::State }),
        Just(Event::VerityError),
        Just(Event::Overdue),
        Just(Event::CleanStop),
        Just(Event::Disarm),
        (0_u8..4).prop_map(|release| Event::Seal(facts(release))),
        Just(Event::Scrubbed),
        Just(Event::Arm),
        Just(Event::Rollback),
        any::<[u8; 32]>().prop_map(|digest| Event::Force { digest }),
        Just(Event::AskReboot),
        (0_u32..4).prop_map(|secver| Event::RaiseFloor { secver }),
    ]
}

proptest! {
    #[test]
    fn no_event_touches_the_running_slot_or_the_bytes_of_later_versions(
        record in any_record(), events in prop::collection::vec((any_event(), any::<bool>()), 1..20),
    ) {
        let mut record = record;
        for (event, in_a) in events {
            let running = if in_a { A } else { B };
            let Ok(next) = step(&record, running, event) else { continue };
            let next = next.record;
            prop_assert_eq!(next.slot(running).content, record.slot(running).content);
            prop_assert_eq!(&next.encode()[312..], &record.encode()[312..]);
            let raises = matches!(event, Event::Arm | Event::Rollback);
            let fuel = |r: &Record| u16::from(r.tries) + u16::from(r.clean);
            prop_assert!(raises || fuel(&next) <= fuel(&record), "{:?}", event);
            prop_assert!(next.floor >= record.floor);
            if event == Event::Arm {
                prop_assert_eq!(holds(&record, &record.slot(running.other()).digest), None);
            }
            if event == Event::Disarm {
                prop_assert!(record.trial != Some(running));
                let [own, other] = [running, running.other()].map(|slot| *record.slot(slot));
                let both_failed = own.fault == Fault::Evidence && other.fault == Fault::Evidence;
                let way_back = other.content == Content::Sealed && !both_failed;
                prop_assert!(record.confirmed_this_boot || !way_back);
            }
            let again = Record::decode(&next.encode()).unwrap();
            prop_assert_eq!(again.encode(), next.encode());
            record = again;
        }
    }

    #[test]
    fn a_plan_offers_every_sealed_slot_once_then_recovery_then_the_firmware(record in any_record()) {
        let mut plan = plan(&record);
        let mut offered = Vec::new();
        loop {
            match plan.choose() {
                Choice::Start { slot, record: next, must_be_durable } => {
                    prop_assert_eq!(record.slot(slot).content, Content::Sealed);
                    prop_assert_eq!(must_be_durable, next.trial == Some(slot));
                    prop_assert_eq!(&next.encode()[312..], &record.encode()[312..]);
                    prop_assert!(!offered.contains(&slot));
                    offered.push(slot);
                    plan.load_failed(slot, Cause::Refused);
                }
                Choice::Recovery { .. } => break,
                Choice::Firmware => prop_assert!(false, "no recovery"),
            }
        }
        prop_assert_eq!(plan.choose(), Choice::Firmware);
        for slot in Slot::ALL {
            let sealed = record.slot(slot).content == Content::Sealed;
            prop_assert_eq!(offered.contains(&slot), sealed);
        }
    }
}
