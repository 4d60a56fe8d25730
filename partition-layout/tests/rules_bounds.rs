//! Where a slot rule ends: on the bound itself, and where only one of two conditions holds.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

mod machine;

use machine::{armed, boot, done, updated};
use partition_layout::boot_state::{Action, Event, Refused, holds, step};
use partition_layout::record::{Cause, Quarantined, Record};
use partition_layout::slot::Slot::{A, B};

#[test]
fn a_trial_whose_tries_are_spent_is_armed_anew() {
    let spent = Record { tries: 0, ..armed() };
    let again = done(&spent, A, Event::Arm);
    assert_eq!((again.trial, again.tries), (Some(B), 3));
}

#[test]
fn a_security_version_on_the_floor_is_not_below_it() {
    let record = done(&updated(), B, Event::RaiseFloor { secver: 1 });
    assert_eq!(done(&record, B, Event::Arm).trial, Some(A));
    assert_eq!(done(&record, B, Event::Rollback).trial, Some(A));
}

#[test]
fn a_rollback_needs_the_default_and_its_confirmation() {
    let not_yet = boot(&updated()).1;
    assert_eq!(step(&not_yet, B, Event::Rollback), Err(Refused::NotConfirmed));
    let not_default = Record { default: A, ..updated() };
    assert_eq!(step(&not_default, B, Event::Rollback), Err(Refused::NotConfirmed));
}

#[test]
fn a_release_that_is_counted_and_not_held_may_be_gone_back_to() {
    let mut record = updated();
    let entry = Quarantined { prefix: [1; 16], cause: Cause::TriesSpent, count: 1, generation: 1 };
    record.quarantine[0] = Some(entry);
    assert_eq!(holds(&record, &[1; 32]), None);
    let back = step(&record, B, Event::Rollback).unwrap();
    assert_eq!((back.action, back.record.trial), (Action::Reboot, Some(A)));
}

/// The loader's stage, and a nonce that is known: os-init reports for the first time. Later reports
/// of the same boot tell of no other hang.
#[test]
fn a_hang_that_the_watchdog_ended_counts_once_a_boot() {
    let mut record = boot(&updated()).1;
    let before = record.last.overdue;
    for _ in 0..3 {
        record = done(&record, B, Event::Started { nonce: record.nonce, watchdog: 32 });
        assert_eq!(record.last.overdue, before + 1);
    }
}

#[test]
fn every_refusal_says_why() {
    use Refused::{
        AboveRunning, AsksSpent, BelowFloor, NotConfirmed, NotDisarmed, NotSealed, OnTrial,
    };
    let plain =
        [NotConfirmed, OnTrial, NotSealed, NotDisarmed, BelowFloor, AboveRunning, AsksSpent];
    let held = Refused::Quarantined(Cause::TriesSpent);
    let mut said: Vec<String> = plain.iter().chain([&held]).map(ToString::to_string).collect();
    assert!(said.iter().all(|why| why.len() > 20), "{said:?}");
    assert!(said.last().unwrap().ends_with(Cause::TriesSpent.words()), "{said:?}");
    said.sort();
    said.dedup();
    assert_eq!(said.len(), plain.len() + 1);
}
