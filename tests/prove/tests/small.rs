//! A small part of what `prove` does, in seconds: the whole is a program of its own.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use prove::crash::Limits;
use prove::faults;
use prove::run::{Crashes, Lives, Options, crashes, lives};

const SEED: u64 = 7;

fn options(only: Option<&str>) -> Options {
    Options {
        seed: SEED,
        limits: Limits::TINY,
        time: None,
        only: only.map(str::to_owned),
        machine_years: 0,
        years: 1,
        life: None,
    }
}

#[test]
fn no_cut_leaves_a_machine_that_does_not_boot() {
    let crashes: Crashes = crashes(&options(None));
    assert!(crashes.failures.is_empty(), "{:#?}", crashes.failures);
    assert!(crashes.total() > 1_500, "{:?}", crashes.states);
    assert_eq!(crashes.unbootable, 0);
    // Nothing is left out without a word.
    assert!(crashes.states.values().all(|states| *states > 0), "{:?}", crashes.states);
}

#[test]
fn the_same_seed_sees_the_same() {
    let once = crashes(&options(Some("trial")));
    let again = crashes(&options(Some("trial")));
    assert_eq!((once.states, once.cuts, once.boots), (again.states, again.cuts, again.boots));
}

#[test]
fn damage_of_any_kind_ends_on_something_whole() {
    let faults = faults::all(SEED, Limits::TINY.foreign_tables, Limits::TINY.one_in);
    assert_eq!(faults.broken, None);
    assert!(faults.states > 150, "{}", faults.states);
}

#[test]
fn lives_keep_their_promises() {
    let Lives { counts, failures } = lives(SEED, 24, 3);
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(counts.days, 24 * 365);
    // They live through something.
    assert!(counts.updates > 50 && counts.fallbacks > 20 && counts.cuts_inside > 20, "{counts:?}");
}
