//! Each rule by itself: a release that is allowed, and one thing about it or the machine changed.

use std::collections::BTreeMap;

use partition_layout::boot_state::{Event, ImageFacts, factory, step};
use partition_layout::frames::FrameTable;
use partition_layout::labels::ImageLabels;
use update_manifest::oci::Descriptor;

use super::*;

const DIGEST: Digest = Digest([9; 32]);

/// All that is judged.
struct Case {
    release: Release,
    machine: Machine,
    record: Record,
    leave: Leave,
}

impl Case {
    fn answer(&self) -> Result<Decision, String> {
        judge(&self.release, DIGEST, &self.machine, &self.record, self.leave)
            .map_err(|failure| failure.kind)
    }

    /// Performs events on the record of the machine, which runs from slot A.
    fn after(mut self, events: &[Event]) -> Case {
        for event in events {
            self.record = step(&self.record, Slot::A, *event).unwrap().record;
        }
        self
    }
}

/// Release 5 for a machine that runs release 3, confirmed, from slot A.
fn allowed() -> Case {
    let labels = ImageLabels {
        product: "bascule".into(),
        kind: KIND_OS.into(),
        arch: "x86_64".into(),
        release: 5,
        secver: 2,
        min_from: 3,
        requires: Vec::new(),
        version: "0.5.0".into(),
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
    let machine = Machine {
        product: "bascule".into(),
        arch: "x86_64".into(),
        release: 3,
        running: Slot::A,
        slot_size: 1 << 20,
    };
    let record = factory([1; 16], ImageFacts { release: 3, secver: 2, digest: [1; 32] });
    let leave = Leave { quarantined: false, direction: Direction::NotOlder };
    Case { release: Release { labels, layer, frames }, machine, record, leave }
        .after(&[Event::Confirm])
}

#[test]
fn each_thing_that_does_not_fit_is_refused_by_its_own_word() {
    assert_eq!(allowed().answer(), Ok(Decision::Install));
    type Change = fn(&mut Case);
    let refusals: [(&str, Change); 10] = [
        ("kind", |case| case.release.labels.kind = "service".into()),
        ("product", |case| case.release.labels.product = "another".into()),
        ("arch", |case| case.release.labels.arch = "aarch64".into()),
        ("requires", |case| case.release.labels.requires.push("two-disks".into())),
        ("min-from", |case| case.machine.release = 2),
        ("too-large", |case| case.machine.slot_size -= 4096),
        ("too-large", |case| case.release.labels.slot_size -= 512),
        ("secver", |case| case.record.floor = 3),
        ("older", |case| case.machine.release = 6),
        // What cannot run here is not even "running already".
        ("arch", |case| {
            case.release.labels.arch = "aarch64".into();
            case.record.slot_mut(Slot::A).digest = DIGEST.0;
        }),
    ];
    for (word, change) in refusals {
        let mut case = allowed();
        change(&mut case);
        assert_eq!(case.answer(), Err(word.to_owned()));
    }
}

#[test]
fn a_way_back_is_overwritten_only_by_a_confirmed_machine() {
    let sealed = ImageFacts { release: 4, secver: 2, digest: [2; 32] };
    let writes = |change: fn(&mut Record)| {
        let mut case = allowed().after(&[Event::Disarm, Event::Seal(sealed)]);
        change(&mut case.record);
        may_write(&case.machine, &case.record).map_err(|failure| failure.kind)
    };
    assert_eq!(writes(|_| ()), Ok(()));
    let trial: fn(&mut Record) = |record| record.trial = Some(Slot::A);
    assert_eq!(writes(trial), Err("on-trial".to_owned()));
    let refused = Err("not-confirmed".to_owned());
    assert_eq!(writes(|record| record.confirmed_this_boot = false), refused);
    assert_eq!(writes(|record| record.default = Slot::B), refused);
    // Without an image in it the other slot is no way back.
    let empty = |record: &mut Record| {
        record.confirmed_this_boot = false;
        record.slot_mut(Slot::B).content = Content::Empty;
    };
    assert_eq!(writes(empty), Ok(()));
}

#[test]
fn the_direction_says_which_release_numbers_are_wanted() {
    let check = |running: u64, direction: Direction, expected: Result<Decision, &str>| {
        let mut case = allowed();
        case.machine.release = running;
        case.leave.direction = direction;
        assert_eq!(case.answer(), expected.map_err(str::to_owned), "{running}, {direction:?}");
    };
    for direction in [Direction::Newer, Direction::NotOlder, Direction::Any] {
        check(4, direction, Ok(Decision::Install));
    }
    check(5, Direction::Newer, Ok(Decision::NotNewer));
    check(5, Direction::NotOlder, Ok(Decision::Install));
    check(6, Direction::Newer, Ok(Decision::NotNewer));
    check(6, Direction::NotOlder, Err("older"));
    check(6, Direction::Any, Ok(Decision::Install));
}

#[test]
fn the_floor_holds_whatever_the_operator_asks_for() {
    let mut case = allowed();
    case.record.floor = 3;
    case.leave = Leave { quarantined: true, direction: Direction::Any };
    assert_eq!(case.answer(), Err("secver".into()));
}

#[test]
fn a_digest_in_quarantine_is_installed_only_when_that_is_asked_for() {
    let facts = ImageFacts { release: 5, secver: 2, digest: DIGEST.0 };
    let left = [Event::Disarm, Event::Seal(facts), Event::Arm, Event::Rollback];
    let mut case = allowed().after(&left);
    assert_eq!(case.answer(), Err("quarantined".into()));
    case.leave.quarantined = true;
    assert_eq!(case.answer(), Ok(Decision::Sealed));
}

#[test]
fn what_is_there_already_is_told_by_its_digest_and_its_content() {
    let mut running = allowed();
    running.record.slot_mut(Slot::A).digest = DIGEST.0;
    assert_eq!(running.answer(), Ok(Decision::Running));

    let facts = ImageFacts { release: 5, secver: 2, digest: DIGEST.0 };
    let sealed = || allowed().after(&[Event::Disarm, Event::Seal(facts)]);
    assert_eq!(sealed().answer(), Ok(Decision::Sealed));
    assert_eq!(sealed().after(&[Event::Arm]).answer(), Ok(Decision::Armed));
    let mut spent = sealed().after(&[Event::Arm]);
    spent.record.tries = 0;
    assert_eq!(spent.answer(), Ok(Decision::Sealed));
    let mut half = sealed();
    half.record.slot_mut(Slot::B).content = Content::Writing;
    assert_eq!(half.answer(), Ok(Decision::Install));
    let mut other = sealed();
    other.record.slot_mut(Slot::B).digest = [7; 32];
    assert_eq!(other.answer(), Ok(Decision::Install));
}
