//! All scenarios on all processors, and what came of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::crash::{Explorer, Limits, Seen};
use crate::layout::Shape;
use crate::lives::{Counts, YEAR, live};
use crate::scenarios::{Scenario, all};
use crate::world::World;
use strict_disk::random::Random;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// What repeats the run.
    pub seed: u64,
    /// How much is tried.
    pub limits: Limits,
    /// Rounds go on, each with another seed, until this time is over; without it there is one.
    pub time: Option<Duration>,
    /// Only scenarios whose name holds this.
    pub only: Option<String>,
    /// Machine-years of long lives.
    pub machine_years: u64,
    /// Years of one life.
    pub years: u32,
    /// Only this life.
    pub life: Option<u64>,
}

/// A promise that was broken, for people.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The scenario and its disk.
    pub scenario: String,
    /// What repeats it.
    pub seed: u64,
    /// What must never happen and did.
    pub what: String,
    /// The way there.
    pub history: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Crashes {
    /// Distinct crash states, all in all and by operation.
    pub states: BTreeMap<&'static str, u64>,
    /// States that did not come up in an intact image, or broke another promise.
    pub unbootable: u64,
    /// Cut points.
    pub cuts: u64,
    /// Cut points where only a seeded part of the fates was tried.
    pub seeded_cuts: u64,
    /// Boots.
    pub boots: u64,
    /// What was broken.
    pub failures: Vec<Failure>,
}

impl Crashes {
    /// All crash states.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.states.values().sum()
    }
}

struct Job<'a> {
    scenario: &'a Scenario,
    shape: Shape,
    seen: Mutex<Seen>,
    failed: Mutex<Option<Failure>>,
}

/// Explores every scenario.
#[must_use]
pub fn crashes(options: &Options) -> Crashes {
    let begun = Instant::now();
    let scenarios = all();
    let wanted =
        |scenario: &&Scenario| options.only.as_ref().is_none_or(|o| scenario.name.contains(o));
    let jobs: Vec<Job<'_>> = scenarios
        .iter()
        .filter(wanted)
        .flat_map(|scenario| scenario.shapes.iter().map(move |shape| (scenario, *shape)))
        .map(|(scenario, shape)| Job {
            scenario,
            shape,
            seen: Mutex::default(),
            failed: Mutex::default(),
        })
        .collect();
    let mut round = 0;
    loop {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                explore(job, options, round);
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        round += 1;
        let failed = jobs.iter().any(|job| lock(&job.failed).is_some());
        if failed || options.time.is_none_or(|time| begun.elapsed() >= time) {
            break;
        }
    }
    sum(&jobs)
}

fn explore(job: &Job<'_>, options: &Options, round: u64) {
    let Scenario { prepare, run, promise, .. } = job.scenario;
    let mut seen = lock(&job.seen);
    let until = seen.states() + options.limits.states;
    let done = (|| {
        let mut world = World::factory(job.shape, 1)?;
        if let Some(number) = promise.then_install {
            crate::scenarios::library(number)?;
        }
        world.firmware_flushes = !job.scenario.lying_firmware;
        prepare(&mut world)
            .map_err(|why| format!("prepare: {why}; {}", world.trail.join(" · ")))?;
        world.trail = vec!["(prepared)".into()];
        let random = Random::new(options.seed.wrapping_add(round.wrapping_mul(0x1_0000)));
        let mut explorer = Explorer {
            limits: options.limits,
            promise: *promise,
            random,
            seen: &mut seen,
            until,
            cut_until: until,
        };
        explorer.explore(&world, run)
    })();
    let broken = match done {
        Ok(()) => seen.broken.take().map(|broken| (broken.what, broken.history)),
        Err(what) => Some((format!("it fails without any cut: {what}"), Vec::new())),
    };
    if let Some((what, history)) = broken {
        *lock(&job.failed) = Some(Failure {
            scenario: format!("{}, {:?}", job.scenario.name, job.shape),
            seed: options.seed,
            what,
            history,
        });
    }
}

/// What came of long lives.
#[derive(Debug, Default)]
pub struct Lives {
    /// What happened in them.
    pub counts: Counts,
    /// What was broken.
    pub failures: Vec<Failure>,
}

/// Lives so many machine-years, in lives of `years` each; stops at the first broken promise.
#[must_use]
pub fn lives(seed: u64, machine_years: u64, years: u32) -> Lives {
    let total = Mutex::new(Lives::default());
    let next = AtomicUsize::new(0);
    let count = machine_years.div_ceil(u64::from(years));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed) as u64;
            if index >= count || !lock(&total).failures.is_empty() {
                return;
            }
            let own = seed.wrapping_mul(1_000_003).wrapping_add(index);
            let mut counts = Counts::default();
            let lived = live(own, years * YEAR, &mut counts);
            let mut total = lock(&total);
            total.counts.add(&counts);
            if let Err(broken) = lived {
                total.failures.push(Failure {
                    scenario: format!("a long life, --life {}", broken.seed),
                    seed,
                    what: broken.what,
                    history: broken.history,
                });
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sum(jobs: &[Job<'_>]) -> Crashes {
    let mut total = Crashes::default();
    for job in jobs {
        let seen = lock(&job.seen);
        *total.states.entry(job.scenario.group).or_default() += seen.states();
        total.unbootable += seen.unbootable;
        total.cuts += seen.cuts;
        total.seeded_cuts += seen.seeded_cuts;
        total.boots += seen.boots;
        total.failures.extend(lock(&job.failed).clone());
    }
    total
}
