//! Records of machines that the tests of the slot rules begin with, and steps on them.
#![allow(dead_code, reason = "each test program uses some of it")]

use partition_layout::boot_state::{
    Choice, Event, ImageFacts, LoaderPlan, Refused, Start, factory, step,
};
use partition_layout::record::Record;
use partition_layout::slot::Slot::{self, A, B};

pub fn facts(release: u8) -> ImageFacts {
    ImageFacts { release: release.into(), secver: release.into(), digest: [release; 32] }
}

pub fn start_at(rtc_s: u64) -> Start {
    Start { nonce: [7; 16], rtc_s }
}

pub fn plan(record: &Record) -> LoaderPlan {
    LoaderPlan::new(record, start_at(1_000_000))
}

/// What the loader starts, and the record that it stores for it.
pub fn boot(record: &Record) -> (Slot, Record) {
    match plan(record).choose() {
        Choice::Start { slot, record, .. } => (slot, record),
        other => panic!("{other:?}"),
    }
}

pub fn done(record: &Record, running: Slot, event: Event) -> Record {
    step(record, running, event).unwrap().record
}

pub fn refused(record: &Record, running: Slot, event: Event) -> Refused {
    step(record, running, event).unwrap_err()
}

pub fn all(record: &Record, running: Slot, events: &[Event]) -> Record {
    events.iter().fold(record.clone(), |record, event| done(&record, running, *event))
}

pub const TO_ARMED: [Event; 4] = [
    Event::Confirm,
    Event::Disarm,
    Event::Seal(ImageFacts { release: 2, secver: 2, digest: [2; 32] }),
    Event::Arm,
];

/// Release 1 confirmed in A, release 2 armed in B.
pub fn armed() -> Record {
    all(&boot(&factory([1; 16], facts(1))).1, A, &TO_ARMED)
}

/// Release 2 confirmed and running in B, release 1 proven in A.
pub fn updated() -> Record {
    done(&boot(&armed()).1, B, Event::Confirm)
}
