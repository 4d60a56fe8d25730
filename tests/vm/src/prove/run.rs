//! The proof: record, rebuild, judge, boot, report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use partition_layout::slot_image::TRAILER_SIZE;
use serde_json::json;
use strict_disk::random::Random;

use super::boots::{self, Outcome, Sample};
use super::cuts::{self, Epoch};
use super::judge::{Judge, Verdict};
use super::kills;
use super::recording::Recording;
use super::story;
use super::timeline::{Area, Cut, SECTOR, Timeline};
use crate::artifacts;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Disks to rebuild and judge.
    pub states: usize,
    /// Of these, disks to boot in real machines.
    pub boots: usize,
    /// How often the power of a machine goes at a moment of no choice.
    pub kills: u32,
    /// What the choice of cuts depends on, and nothing else does.
    pub seed: u64,
}

impl Size {
    /// What every change is tested with.
    pub const QUICK: Self = Self { states: 3000, boots: 20, kills: 3, seed: 1 };
}

/// At most so many disks are rebuilt as if no flush did anything.
const LYING_STATES: usize = 100;

/// One rebuilt disk, judged.
struct Judged {
    cut: Cut,
    operation: String,
    verdict: Verdict,
    /// Whether a record or a trailer is written just before or after.
    near_flip: bool,
}

/// Runs the proof; leaves `prove-vm.json` in the target folder.
///
/// # Errors
/// Something cannot be made; or some disk does not boot: then the histories have been printed.
pub fn run(size: Size) -> Result<()> {
    let begun = Instant::now();
    println!("power cuts on a real machine's disk, seed {}", size.seed);
    let recording = Recording::of_update()?;
    let recorded_s = begun.elapsed().as_secs_f64();
    let mut timeline = Timeline::new(&recording.base(), recording.log()?)?;
    let mut unbootable = story::strayed(&recording, &timeline);
    for stray in &unbootable {
        println!("  a write where nobody may write: {stray}");
    }
    let caught = without_flushes(&recording, size.seed)?;
    let mut judge = Judge::default();
    let judged = judge_all(&recording, &mut timeline, &mut judge, size);
    unbootable.extend(tell_failures(&recording, &timeline, &judged, size.seed));
    let rebuilt_s = begun.elapsed().as_secs_f64() - recorded_s;
    println!("  rebuilt and judged {} disks in {rebuilt_s:.1} s", judged.len());

    let samples = sample(&judged, size);
    let outcomes = thread::scope(|scope| {
        let kills = scope.spawn(|| kills::run("prove-kills", size.kills, size.seed));
        let outcomes = boot(&recording, &timeline, &samples)?;
        match kills.join() {
            Ok(result) => result.map(|()| outcomes),
            Err(_) => bail!("the thread that kills a machine has ended by a panic"),
        }
    })?;
    for (sample, outcome) in samples.iter().zip(&outcomes) {
        if let Outcome::Failed(why) = outcome {
            let history = story::history(&recording, &timeline, &sample.cut);
            println!("\nDOES NOT BOOT, seed {}\n{history}\n  {why}", size.seed);
            unbootable.push(why.clone());
        }
    }
    let report = json!({
        "rebuilt_from_vm": judged.len(),
        "booted_from_vm": outcomes.iter().filter(|it| !matches!(it, Outcome::Failed(_))).count(),
        // How many of them differ in what the loader reads: most differ in a slot that is not chosen,
        // or in the state partition.
        "different_to_the_loader": judge.boots(),
        "slot_contents_read_whole": judge.images(),
        "killed_at_random": size.kills,
        "degraded": outcomes.iter().filter(|it| **it == Outcome::Degraded).count(),
        "unbootable": unbootable.len(),
        "first_unbootable_without_flushes": caught,
        "by_operation": by_operation(judged.iter().map(|it| it.operation.as_str())),
        "booted_by_operation": by_operation(samples.iter().map(|it| it.operation.as_str())),
        "log_entries": timeline.log().entries().len(),
        "seed": size.seed,
        "seconds": begun.elapsed().as_secs_f64(),
        "seconds_to_record": recorded_s,
        "seconds_to_rebuild": rebuilt_s,
    });
    let path = artifacts::target_dir().join("prove-vm.json");
    let text = serde_json::to_string_pretty(&report).context("encode prove-vm.json")?;
    fs::write(&path, text.clone() + "\n").with_context(|| format!("write {}", path.display()))?;
    println!("{text}");
    ensure!(unbootable.is_empty(), "{} of these disks do not boot", unbootable.len());
    ensure!(judged.len() >= size.states, "only {} different disks to rebuild", judged.len());
    ensure!(outcomes.len() >= size.boots, "only {} disks to boot", outcomes.len());
    Ok(())
}

fn boot(recording: &Recording, timeline: &Timeline, samples: &[Sample]) -> Result<Vec<Outcome>> {
    boots::run(&recording.base(), timeline.log(), samples, |number, outcome, took| {
        if let Some(Sample { operation, cut, started, .. }) = samples.get(number) {
            let (flushed, parts, slot) = (cut.flushed, cut.kept.len(), started.slot);
            let what = format!("cut during {operation}, entry {flushed} and {parts} parts");
            println!("  boot {number}: {what}: slot {slot} {} ({took} s)", outcome_words(outcome));
        }
    })
}

/// Whether the judge sees anything: with every flush taken out of the same log, a disk must be
/// found that does not boot. The number of the first that does not, from 1.
fn without_flushes(recording: &Recording, seed: u64) -> Result<usize> {
    let timeline = Timeline::new(&recording.base(), recording.log()?)?;
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
fn judge_all(
    recording: &Recording,
    timeline: &mut Timeline,
    judge: &mut Judge,
    size: Size,
) -> Vec<Judged> {
    let epochs = cuts::epochs(timeline.log().entries());
    let entries = timeline.log().entries();
    let cuts = cuts::choose(entries, &epochs, timeline.areas(), size.states, size.seed);
    let (flushes, all) = (epochs.len(), cuts.len());
    println!("  {} log entries, {flushes} flushes, {all} cuts", timeline.log().entries().len());
    let mut judged = Vec::with_capacity(all);
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
        if judged.len().is_multiple_of(500) {
            let (boots, images) = (judge.boots(), judge.images());
            println!("    {} of {all}: {boots} different boots, {images} slots read", judged.len());
        }
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

/// Disks to boot: from all operations in turn, near a write of the record first.
fn sample(judged: &[Judged], size: Size) -> Vec<Sample> {
    let mut random = Random::new(size.seed ^ 0x5AFE);
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
    while samples.len() < size.boots && groups.values().any(|group| !group.is_empty()) {
        for (operation, group) in &mut groups {
            let Some(Judged { cut, verdict, .. }) = group.pop() else { continue };
            if let Some(started) = verdict.started.filter(|_| samples.len() < size.boots) {
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
        Outcome::Degraded => "is up, degraded: its state partition is broken",
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
