//! The plan, walked by tables and at random.

use std::collections::BTreeMap;

use partition_layout::boot_state::{Event as RecordEvent, factory, step};
use partition_layout::frames::FrameTable;
use partition_layout::labels::ImageLabels;
use partition_layout::slot::Slot;
use proptest::prelude::*;
use update_manifest::oci::Descriptor;

use super::*;
use crate::policy::Direction;

const PAUSES: Pauses =
    Pauses { first: Duration::from_millis(500), longest: Duration::from_secs(30) };
const DIGEST: Digest = Digest([9; 32]);

fn release() -> Box<Release> {
    let labels = ImageLabels {
        product: "bascule".into(),
        kind: "os".into(),
        arch: "x86_64".into(),
        release: 2,
        secver: 1,
        min_from: 0,
        requires: Vec::new(),
        version: "0.2.0".into(),
        slot_size: 1 << 20,
        slot_sha256: [3; 32],
        root_hash: [4; 32],
    };
    let layer = Descriptor {
        media_type: String::new(),
        digest: Digest([8; 32]),
        size: 100,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let frames = FrameTable { head: 10, slot: vec![80], tail: 10 };
    Box::new(Release { labels, layer, frames })
}

fn machine() -> Machine {
    Machine {
        product: "bascule".into(),
        arch: "x86_64".into(),
        release: 1,
        running: Slot::A,
        slot_size: 2 << 20,
    }
}

fn record(events: &[RecordEvent]) -> Box<Record> {
    let facts = ImageFacts { release: 1, secver: 1, digest: [1; 32] };
    let mut record = factory([1; 16], facts);
    for event in events {
        record = step(&record, Slot::A, *event).unwrap().record;
    }
    Box::new(record)
}

fn facts() -> ImageFacts {
    ImageFacts { release: 2, secver: 1, digest: DIGEST.0 }
}

fn order(goal: Goal) -> Order {
    Order { goal, leave: Leave { quarantined: false, direction: Direction::NotOlder } }
}

fn failure() -> Failure {
    Failure::new(Class::CannotKnow, "registry", "gone")
}

/// Walks a plan through `events`; the actions asked for, and how it ended.
fn walk(order: Order, events: Vec<Event>) -> (Vec<Action>, Option<Result<Outcome, Failure>>) {
    let (mut plan, mut action) = Plan::begin(order, machine(), PAUSES);
    let mut actions = vec![action.clone()];
    for event in events {
        (plan, action) = plan.step(event, Duration::ZERO);
        actions.push(action.clone());
        if let Action::Finish(result) = action {
            return (actions, Some(*result));
        }
    }
    (actions, None)
}

fn until_judged(record: Box<Record>) -> Vec<Event> {
    vec![
        Event::Resolved,
        Event::Vouched,
        Event::Described(DIGEST, release()),
        Event::Record(record),
    ]
}

#[test]
fn an_installation_goes_through_every_step_in_order() {
    let mut events = until_judged(record(&[RecordEvent::Confirm]));
    events.extend([
        Event::Done,
        Event::Opened,
        Event::Received,
        Event::ReadBack,
        Event::Done,
        Event::Done,
        Event::Done,
    ]);
    let (actions, ended) = walk(order(Goal::Arm), events.clone());
    assert_eq!(ended, Some(Ok(Outcome::Armed)));
    let finish = Action::Finish(Box::new(Ok(Outcome::Armed)));
    assert_eq!(
        actions,
        [
            Action::Resolve,
            Action::Verify,
            Action::Describe,
            Action::ReadRecord,
            Action::Disarm,
            Action::Open,
            Action::Stream,
            Action::ReadBack,
            Action::WriteTrailer,
            Action::Seal(facts()),
            Action::Arm,
            finish,
        ]
    );
    let (actions, ended) = walk(order(Goal::Seal), events);
    assert_eq!(ended, Some(Ok(Outcome::Sealed)));
    assert!(!actions.contains(&Action::Arm));
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let seal = [RecordEvent::Confirm, RecordEvent::Disarm, RecordEvent::Seal(facts())];
    let armed: Vec<RecordEvent> = seal.iter().copied().chain([RecordEvent::Arm]).collect();
    let check = |events: &[RecordEvent], goal, expected| {
        let (actions, ended) = walk(order(goal), until_judged(record(events)));
        assert_eq!(ended, Some(Ok(expected)));
        assert!(!actions.contains(&Action::Disarm));
    };
    check(&armed, Goal::Arm, Outcome::AlreadyArmed);
    check(&armed, Goal::Look, Outcome::AlreadyArmed);
    check(&seal, Goal::Seal, Outcome::AlreadySealed);
    check(&[RecordEvent::Confirm], Goal::Look, Outcome::Available);

    let mut events = until_judged(record(&seal));
    events.extend([Event::Inspected(true), Event::Done]);
    let (actions, ended) = walk(order(Goal::Arm), events);
    assert_eq!(ended, Some(Ok(Outcome::Armed)));
    assert!(actions.contains(&Action::Inspect) && !actions.contains(&Action::Disarm));

    let mut events = until_judged(record(&seal));
    events.push(Event::Inspected(false));
    let (actions, _) = walk(order(Goal::Arm), events);
    assert_eq!(actions.last(), Some(&Action::Disarm), "gone bad: written anew");
}

#[test]
fn a_machine_that_is_not_confirmed_is_told_what_there_is_and_keeps_its_way_back() {
    let before = ImageFacts { digest: [7; 32], ..facts() };
    let unconfirmed = || {
        let mut record =
            record(&[RecordEvent::Confirm, RecordEvent::Disarm, RecordEvent::Seal(before)]);
        record.confirmed_this_boot = false;
        record
    };
    for goal in [Goal::Seal, Goal::Arm] {
        let (actions, ended) = walk(order(goal), until_judged(unconfirmed()));
        let Some(Err(refused)) = ended else { panic!("{goal:?}: {ended:?}") };
        assert_eq!(refused.kind, "not-confirmed");
        assert!(!actions.contains(&Action::Disarm));
    }
    let (_, ended) = walk(order(Goal::Look), until_judged(unconfirmed()));
    assert_eq!(ended, Some(Ok(Outcome::Available)));
}

#[test]
fn a_quarantined_release_needs_a_word_from_the_operator() {
    let held = || {
        let mut held = record(&[
            RecordEvent::Confirm,
            RecordEvent::Disarm,
            RecordEvent::Seal(facts()),
            RecordEvent::Arm,
        ]);
        held = Box::new(step(&held, Slot::A, RecordEvent::Rollback).unwrap().record);
        held
    };
    let (_, ended) = walk(order(Goal::Arm), until_judged(held()));
    assert_eq!(ended.unwrap().unwrap_err().kind, "quarantined");
    let mut order = order(Goal::Arm);
    order.leave.quarantined = true;
    let mut events = until_judged(held());
    events.extend([Event::Done, Event::Inspected(true), Event::Done]);
    let (actions, ended) = walk(order, events);
    assert_eq!(ended, Some(Ok(Outcome::Armed)));
    assert!(actions.contains(&Action::Force(DIGEST.0)));
}

#[test]
fn a_download_that_stands_still_is_given_up_and_one_that_moves_is_not() {
    let (mut plan, mut action) = Plan::begin(order(Goal::Arm), machine(), PAUSES);
    let mut events = until_judged(record(&[RecordEvent::Confirm]));
    events.extend([Event::Done, Event::Opened]);
    for event in events {
        (plan, action) = plan.step(event, Duration::ZERO);
    }
    assert_eq!(action, Action::Stream);
    let mut now = Duration::ZERO;
    for done in 1..200 {
        now += Duration::from_secs(60);
        (plan, action) = plan.step(Event::Interrupted(done, failure()), now);
        assert!(matches!(action, Action::Wait(_)), "{done}: it moves");
        (plan, action) = plan.step(Event::Waited, now);
        assert_eq!(action, Action::Stream);
    }
    let mut tries = 0;
    loop {
        (plan, action) = plan.step(Event::Interrupted(199, failure()), now);
        if let Action::Finish(result) = action {
            assert_eq!(*result, Err(failure()));
            break;
        }
        tries += 1;
        assert!(tries <= INTERRUPTIONS_MAX, "bounded");
        (plan, _) = plan.step(Event::Waited, now);
    }
}

#[test]
fn a_frame_that_is_bad_twice_is_the_images_fault() {
    let mut events = until_judged(record(&[RecordEvent::Confirm]));
    let bad = |frame| Event::BadFrame(frame, "checksum".into());
    events.extend([Event::Done, Event::Opened, bad(3), bad(4), bad(4)]);
    let (_, ended) = walk(order(Goal::Arm), events);
    assert_eq!(ended.unwrap().unwrap_err().class, Class::Corrupt);
}

fn any_event() -> impl Strategy<Value = Event> {
    let confirmed = record(&[RecordEvent::Confirm]);
    let sealed = record(&[RecordEvent::Confirm, RecordEvent::Disarm, RecordEvent::Seal(facts())]);
    prop_oneof![
        Just(Event::Resolved),
        Just(Event::Vouched),
        Just(Event::Described(DIGEST, release())),
        Just(Event::Record(confirmed)),
        Just(Event::Record(sealed)),
        Just(Event::Done),
        Just(Event::Opened),
        Just(Event::Received),
        (0usize..5).prop_map(|done| Event::Interrupted(done, failure())),
        (0usize..5).prop_map(|done| Event::BadFrame(done, "x".into())),
        Just(Event::ReadBack),
        any::<bool>().prop_map(Event::Inspected),
        Just(Event::Waited),
        Just(Event::Failed(failure())),
    ]
}

proptest! {
    /// Whatever the shell reports, in whatever order: no step comes before those that it rests on.
    #[test]
    fn no_order_of_events_skips_a_step(events in proptest::collection::vec(any_event(), 0..60)) {
        let (actions, _) = walk(order(Goal::Arm), events);
        let at = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted);
        let verify = at(&|action| *action == Action::Verify);
        let judged = at(&|action| *action == Action::ReadRecord);
        let back = at(&|action| *action == Action::ReadBack);
        let trailer = at(&|action| *action == Action::WriteTrailer);
        let seal = at(&|action| matches!(action, Action::Seal(_)));
        let inspect = at(&|action| *action == Action::Inspect);
        let rests = |step: Option<usize>, on: Option<usize>| {
            step.is_none() || on.is_some_and(|on| Some(on) < step)
        };
        prop_assert!(rests(at(&|action| *action == Action::Disarm), judged));
        prop_assert!(rests(judged, verify));
        prop_assert!(rests(trailer, back));
        prop_assert!(rests(seal, trailer));
        let arm = at(&|action| *action == Action::Arm);
        prop_assert!(rests(arm, seal) || rests(arm, inspect));
        let open = at(&|action| *action == Action::Open);
        prop_assert!(rests(open, at(&|action| *action == Action::Disarm)));
    }
}
