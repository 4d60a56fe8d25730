//! The proof: record, rebuild, judge, boot, report. The disks of a step of the life are rebuilt and
//! booted while the next step is being recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use partition_layout::slot_image::TRAILER_SIZE;
use serde_json::json;
use strict_disk::random::Random;

use super::boots::{self, Job, Outcome, Permits, Sample};
use super::cuts::{self, Epoch};
use super::judge::{Judge, Verdict};
use super::recording::{Recording, STEPS};
use super::story;
use super::timeline::{Area, Cut, SECTOR, Timeline};
use super::{kills, old_clock};
use crate::write_log::Log;
use crate::{artifacts, limit};

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Disks to rebuild and judge.
    pub states: usize,
    /// Of these, disks to boot in real machines.
    pub boots: usize,
    /// How often the power of a machine goes at a moment of no choice.
    pub kills: u32,
    /// How many new machines lose their power just after their first boot.
    pub first_boots: u32,
    /// Files on the state partition that a boot in the past has to leave alone (ST-3).
    pub old_files: u32,
    /// What the choice of cuts depends on, and nothing else does.
    pub seed: u64,
}

impl Size {
    /// What every change is tested with; [`kills`] is a scenario of its own there.
    pub const QUICK: Self =
        Self { states: 3000, boots: 20, kills: 0, first_boots: 0, old_files: 0, seed: 1 };
}

/// At most so many disks are rebuilt as if no flush did anything.
const LYING_STATES: usize = 100;
/// Of a hundred disks, how many belong to each step, which may have fewer. It is the apply that
/// writes a slot.
const SHARES: [usize; STEPS.len()] = [60, 15, 5, 15, 5];

/// One rebuilt disk, judged.
struct Judged {
    cut: Cut,
    operation: String,
    verdict: Verdict,
    /// Whether a record or a trailer is written just before or after.
    near_flip: bool,
}

/// What has been rebuilt and judged so far, and what is booted of it.
struct Progress {
    size: Size,
    judge: Judge,
    judged: Vec<Judged>,
    /// Number of disks that were handed on to be booted.
    sampled: usize,
}

/// What a boot came to.
struct Booted {
    sample: Sample,
    outcome: Outcome,
}

/// Runs the proof; leaves `prove-vm.json` in the target folder.
///
/// # Errors
/// Something cannot be made; or some disk does not boot: then the histories have been printed.
pub fn run(size: Size) -> Result<()> {
    let begun = Instant::now();
    println!("power cuts on a real machine's disk, seed {}", size.seed);
    let mut progress = Progress::new(size);
    let ((recording, booted), old_clock) = thread::scope(|scope| {
        let kills = scope.spawn(|| {
            kills::run("prove-kills", size.kills, size.seed)?;
            kills::first_boots("prove-first-boots", size.first_boots, size.seed)?;
            old_clock::run("prove-old-clock", size.old_files)
        });
        let done = record_and_boot(&mut progress);
        match kills.join() {
            Ok(result) => result.and_then(|ratio| Ok((done?, ratio))),
            Err(_) => bail!("the thread that kills machines has ended by a panic"),
        }
    })?;
    let timeline = Timeline::new(recording.base(), Arc::new(recording.log()?))?;
    let mut unbootable = story::strayed(&recording, &timeline);
    for stray in &unbootable {
        println!("  a write where nobody may write: {stray}");
    }
    let Progress { judge, judged, .. } = &progress;
    unbootable.extend(tell_failures(&recording, &timeline, judged, size.seed));
    for Booted { sample: Sample { cut, .. }, outcome } in &booted {
        if let Outcome::Failed(why) = outcome {
            let history = story::history(&recording, &timeline, cut);
            println!("\nDOES NOT BOOT, seed {}\n{history}\n  {why}", size.seed);
            unbootable.push(why.clone());
        }
    }
    let caught = without_flushes(&recording, size.seed)?;
    let report = json!({
        "rebuilt_from_vm": judged.len(),
        "booted_from_vm": booted.iter().filter(|it| !matches!(it.outcome, Outcome::Failed(_))).count(),
        // How many of them differ in what the loader reads: most differ in a slot that is not chosen,
        // or in the state partition.
        "different_to_the_loader": judge.boots(),
        "slot_contents_read_whole": judge.images(),
        "killed_at_random": size.kills,
        "killed_at_first_boot": size.first_boots,
        "files_at_an_old_clock": size.old_files,
        "old_clock_boot_ratio": old_clock,
        "unbootable": unbootable.len(),
        "first_unbootable_without_flushes": caught,
        "by_operation": by_operation(judged.iter().map(|it| it.operation.as_str())),
        "booted_by_operation": by_operation(booted.iter().map(|it| it.sample.operation.as_str())),
        "log_entries": timeline.log().entries().len(),
        "seed": size.seed,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    let path = artifacts::target_dir().join("prove-vm.json");
    let text = serde_json::to_string_pretty(&report).context("encode prove-vm.json")?;
    fs::write(&path, text.clone() + "\n").with_context(|| format!("write {}", path.display()))?;
    println!("{text}");
    ensure!(unbootable.is_empty(), "{} of these disks do not boot", unbootable.len());
    ensure!(judged.len() >= size.states, "only {} different disks to rebuild", judged.len());
    ensure!(booted.len() >= size.boots, "only {} disks to boot", booted.len());
    Ok(())
}

/// Records, rebuilds and judges; what is sampled is booted meanwhile.
fn record_and_boot(progress: &mut Progress) -> Result<(Recording, Vec<Booted>)> {
    let (jobs, waiting) = mpsc::channel();
    let waiting = Mutex::new(waiting);
    let booted = Mutex::new(Vec::new());
    let (permits, ended) = (Permits::for_processors(), AtomicBool::new(false));
    let told = |job: &Job, outcome: Outcome, took: &str| {
        let Sample { cut, operation, started } = &job.sample;
        let (flushed, parts, slot) = (cut.flushed, cut.kept.len(), started.slot);
        let what = format!("cut during {operation}, entry {flushed} and {parts} parts");
        println!("  boot {}: {what}: slot {slot} {} ({took})", job.number, outcome_words(&outcome));
        let mut booted = booted.lock().unwrap_or_else(|it| it.into_inner());
        booted.push(Booted { sample: job.sample.clone(), outcome });
    };
    let recording = thread::scope(|scope| {
        let work = || boots::work(&waiting, &permits, &ended, told);
        // One place is left for the machine that is recorded.
        let count = limit::places().saturating_sub(1).max(1);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let recording = Recording::followed(&mut |so_far, log, entries| {
            ensure!(!ended.load(Ordering::Relaxed), "the boots of earlier steps have failed");
            progress.step(so_far, log, entries, &jobs)
        });
        // The threads end when all jobs are done, or are in vain.
        drop(jobs);
        if recording.is_err() {
            ended.store(true, Ordering::Relaxed);
        }
        let mut failed = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(done) => failed.extend(done.err()),
                Err(_) => bail!("a thread that boots machines has ended by a panic"),
            }
        }
        match (recording, failed.pop()) {
            (recording, None) => recording,
            (Ok(_), Some(error)) => Err(error),
            (Err(recording), Some(error)) => Err(error.context(format!("{recording:#}"))),
        }
    })?;
    Ok((recording, booted.into_inner().unwrap_or_else(|it| it.into_inner())))
}

impl Progress {
    fn new(size: Size) -> Self {
        Self { size, judge: Judge::default(), judged: Vec::new(), sampled: 0 }
    }

    /// Rebuilds and judges the disks of the step that wrote these log entries; some are booted.
    fn step(
        &mut self,
        recording: &Recording,
        log: &Arc<Log>,
        entries: Range<usize>,
        jobs: &Sender<Job>,
    ) -> Result<()> {
        let begun = Instant::now();
        let name = recording.step_of(entries.start).to_owned();
        let mut timeline = Timeline::new(recording.base(), Arc::clone(log))?;
        timeline.advance(entries.start);
        let steps = STEPS.iter().take_while(|step| **step != name).count() + 1;
        // What earlier steps had too few of is made up for.
        let shares = SHARES.iter().take(steps);
        let wanted = self.size.states * shares.sum::<usize>() / 100;
        let wanted = wanted.saturating_sub(self.judged.len());
        let judged =
            judge_step(recording, &mut timeline, entries, &mut self.judge, wanted, self.size.seed);
        let (count, seconds) = (judged.len(), begun.elapsed().as_secs_f32());
        println!("  {name}: rebuilt and judged {count} disks in {seconds:.1} s");

        let boots = (self.size.boots * steps).div_ceil(SHARES.len());
        let boots = boots.saturating_sub(self.sampled);
        for sample in sample(&judged, boots, self.size.seed) {
            let (base, log) = (recording.base().to_owned(), Arc::clone(log));
            let number = self.sampled;
            self.sampled += 1;
            jobs.send(Job { number, base, log, sample }).context("hand a disk on to be booted")?;
        }
        self.judged.extend(judged);
        Ok(())
    }
}

/// Whether the judge sees anything: with every flush taken out of the same log, a disk must be
/// found that does not boot. The number of the first that does not, from 1.
fn without_flushes(recording: &Recording, seed: u64) -> Result<usize> {
    let timeline = Timeline::new(recording.base(), Arc::new(recording.log()?))?;
    let entries = timeline.log().entries();
    // Up to the rollback: afterwards the slot that was never written is the default again.
    let mut epochs = cuts::epochs(entries);
    epochs
        .retain(|epoch| ["apply", "trial boot"].contains(&recording.step_of(epoch.entries.start)));
    let epochs = cuts::without_flushes(&epochs);
    let cuts = cuts::choose(entries, &epochs, timeline.areas(), LYING_STATES, seed);
    let mut judge = Judge::default();
    // The whole log, at the end, was flushed.
    let mut lying = cuts.iter().filter(|cut| cut.flushed == 0);
    let found = lying.position(|it| judge.judge(&timeline, &it.kept).unbootable.is_some());
    let Some(found) = found else {
        bail!("{LYING_STATES} disks that never flushed all boot: nothing would be proven");
    };
    println!("  if no flush did anything, disk {} would not boot: the judge sees it", found + 1);
    Ok(found + 1)
}

/// Rebuilds and judges, in the order of time.
fn judge_step(
    recording: &Recording,
    timeline: &mut Timeline,
    range: Range<usize>,
    judge: &mut Judge,
    wanted: usize,
    seed: u64,
) -> Vec<Judged> {
    let entries = timeline.log().entries().get(..range.end).unwrap_or_default();
    let mut epochs = cuts::epochs(entries);
    epochs.retain(|epoch| epoch.entries.start >= range.start);
    // The flush before the first entry was the last one of the step before.
    let known = Cut { flushed: range.start, kept: Vec::new() };
    let wanted = wanted + usize::from(range.start > 0);
    let mut cuts = cuts::choose(entries, &epochs, timeline.areas(), wanted, seed);
    cuts.retain(|cut| range.start == 0 || *cut != known);
    let mut judged = Vec::with_capacity(cuts.len());
    for cut in cuts {
        timeline.advance(cut.flushed);
        let verdict = judge.judge(timeline, &cut.kept);
        let here = epochs.iter().position(|epoch| epoch.entries.contains(&cut.flushed));
        let epoch = here.and_then(|here| epochs.get(here));
        let before = here.map_or(epochs.last(), |here| epochs.get(here.wrapping_sub(1)));
        let operation = match epoch {
            Some(epoch) => story::scene(recording, timeline, epoch).operation,
            None => recording.step_of(cut.flushed).to_owned(),
        };
        let touched = [epoch, if cut.kept.is_empty() { before } else { None }];
        let near_flip = touched.into_iter().flatten().any(|it| flips(timeline, it));
        judged.push(Judged { cut, operation, verdict, near_flip });
    }
    judged
}

/// Whether an epoch writes a record, or a slot's trailer.
fn flips(timeline: &Timeline, epoch: &Epoch) -> bool {
    epoch.writes.iter().filter_map(|number| timeline.log().entries().get(*number)).any(|entry| {
        match timeline.areas().of_sector(entry.at / SECTOR) {
            Area::Record => true,
            Area::SlotA | Area::SlotB => entry.length == TRAILER_SIZE as u64,
            Area::Elsewhere | Area::State => false,
        }
    })
}

fn tell_failures(
    recording: &Recording,
    timeline: &Timeline,
    judged: &[Judged],
    seed: u64,
) -> Vec<String> {
    let mut failures = Vec::new();
    for it in judged {
        let Some(why) = &it.verdict.unbootable else { continue };
        let history = story::history(recording, timeline, &it.cut);
        println!("\nDOES NOT BOOT, seed {seed}\n{history}");
        for line in &it.verdict.said {
            println!("  loader: {line}");
        }
        println!("  {why}");
        failures.push(why.clone());
    }
    failures
}

/// So many disks to boot: from all operations in turn, near a write of the record first.
fn sample(judged: &[Judged], wanted: usize, seed: u64) -> Vec<Sample> {
    let mut random = Random::new(seed ^ 0x5AFE);
    let mut groups: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    for it in judged.iter().filter(|it| it.verdict.started.is_some()) {
        groups.entry(&it.operation).or_default().push(it);
    }
    for group in groups.values_mut() {
        // Shuffled, then those near a flip to the end, from which is taken.
        for place in (1..group.len()).rev() {
            let other = usize::try_from(random.below(place as u64 + 1)).unwrap_or(place);
            group.swap(place, other);
        }
        // Of each flush first one, so that the same moment is not booted twice.
        let mut seen = BTreeSet::new();
        group.sort_by_cached_key(|it| (it.near_flip, seen.insert(it.cut.flushed)));
    }
    let mut samples = Vec::new();
    while samples.len() < wanted && groups.values().any(|group| !group.is_empty()) {
        for (operation, group) in &mut groups {
            let Some(Judged { cut, verdict, .. }) = group.pop() else { continue };
            if let Some(started) = verdict.started.filter(|_| samples.len() < wanted) {
                let operation = (*operation).to_owned();
                samples.push(Sample { cut: cut.clone(), operation, started });
            }
        }
    }
    samples
}

fn outcome_words(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Confirmed => "confirmed",
        Outcome::Failed(_) => "FAILED",
    }
}

fn by_operation<'a>(operations: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for operation in operations {
        *counts.entry(operation).or_default() += 1;
    }
    counts
}
