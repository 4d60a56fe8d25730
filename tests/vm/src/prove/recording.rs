//! One real machine, one life: apply, trial boot, confirm, rollback, boot, power off; with every
//! write and flush of its disk in a log. Kept, so that only the first proof pays for it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::host_tool::show;
use crate::machine::{Machine, qemu_img, raw_copy};
use crate::registry::Registry;
use crate::template::Template;
use crate::write_log::{self, Log};
use crate::{artifacts, guest, kept, wait};

/// Changes when what is recorded does: kept recordings of another number are made anew.
const VERSION: &str = "2";
/// A recording is worth waiting for, however busy the host is.
const PATIENCE: u32 = 4;
/// A log is whole soon after a step.
const QUIET: Duration = Duration::from_secs(20);
/// What the steps are called in reports, in their order.
pub const STEPS: [&str; 5] =
    ["apply", "trial boot", "rollback", "boot after the rollback", "power off"];

/// A recorded life, or what there is of one that is still being recorded.
#[derive(Debug, Clone)]
pub struct Recording {
    base: PathBuf,
    log: PathBuf,
    left: PathBuf,
    steps: Vec<Step>,
}

/// Who is told of each step that is over: of the recording and its log so far, and of the entries of
/// the step, which end with a flush.
pub type Told<'a> = dyn FnMut(&Recording, &Arc<Log>, Range<usize>) -> Result<()> + 'a;

/// One operation of the life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// Number of the first log entry that may belong to it.
    pub first: usize,
}

impl Recording {
    /// The recording of an update from release 1 to release 2 and back.
    ///
    /// # Errors
    /// A release is not built, the machine does not do as it should, or the log replayed is not the
    /// disk that the machine left.
    pub fn of_update() -> Result<Self> {
        Self::followed(&mut |_, _, _| Ok(()))
    }

    /// As [`Recording::of_update`]; `told` hears of each step, in their order: while the machine
    /// lives, or afterwards where the recording was kept.
    ///
    /// # Errors
    /// As [`Recording::of_update`], or what `told` says.
    pub fn followed(told: &mut Told<'_>) -> Result<Self> {
        let template = Template::of_release("v1")?;
        let slot = artifacts::release("v2")?.slot();
        let key = kept::key(&[&template.base(), &slot], VERSION)?;
        let mut heard = false;
        let dir = kept::folder("recordings", "update", &key, |dir| {
            println!("  recording a life: {}", STEPS.join(", "));
            heard = true;
            record(&template, dir, told)?;
            check_complete(dir)
        })?;
        let steps = read_steps(&dir)?;
        let (base, log, left) = (base_in(&dir), log_in(&dir), final_in(&dir));
        let recording = Self { base, log, left, steps };
        if !heard {
            recording.tell(told)?;
        }
        Ok(recording)
    }

    /// Tells of all steps.
    fn tell(&self, told: &mut Told<'_>) -> Result<()> {
        let log = Arc::new(self.log()?);
        let end = log.entries().len();
        let ends = self.steps.iter().skip(1).map(|step| step.first).chain([end]);
        for (number, (step, end)) in (1..).zip(self.steps.iter().zip(ends)) {
            let steps = self.steps.iter().take(number).cloned().collect();
            told(&Self { steps, ..self.clone() }, &log, step.first..end)?;
        }
        Ok(())
    }

    /// The disk before the first entry of the log; raw, sparse.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The disk that the machine left: off, release 1 in slot A, release 2 left by a rollback in B.
    pub fn left(&self) -> &Path {
        &self.left
    }

    /// The log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<Log> {
        Log::open(&self.log)
    }

    /// The operation to which the log entry `number` belongs.
    pub fn step_of(&self, number: usize) -> &str {
        let step = self.steps.iter().rev().find(|step| step.first <= number);
        step.map_or("before the recording", |step| &step.name)
    }
}

fn base_in(dir: &Path) -> PathBuf {
    dir.join("base.raw")
}

fn log_in(dir: &Path) -> PathBuf {
    dir.join("writes.log")
}

fn final_in(dir: &Path) -> PathBuf {
    dir.join("final.qcow2")
}

/// Lives the life; leaves base, log, final disk and steps in `dir`.
fn record(template: &Template, dir: &Path, told: &mut Told<'_>) -> Result<()> {
    let base = base_in(dir);
    raw_copy(&template.base(), &base)?;
    let registry = Registry::start("prove-record")?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = template.start_with("prove-record", |options| options.write_log = true)?;
    machine.route_registry(Some(registry.port()))?;
    let (log, left) = (machine.write_log_file(), final_in(dir));
    let mut so_far = Recording { base, log, left, steps: Vec::new() };
    let mut first = 0;
    for name in STEPS {
        println!("    {name}, from log entry {first} …");
        so_far.steps.push(Step { name: name.to_owned(), first });
        act(name, &mut machine).with_context(|| format!("while recording: {name}"))?;
        let so_far_log = Arc::new(flushed(&so_far)?);
        let end = so_far_log.entries().len();
        told(&so_far, &so_far_log, first..end)?;
        first = end;
    }
    fs::rename(&so_far.log, log_in(dir)).context("keep the log")?;
    // Its backing file is the template's disk, which is there as long as this recording counts.
    fs::rename(machine.disk_file(), &so_far.left).context("keep the final disk")?;
    let steps = so_far.steps.iter().map(|it| json!({"name": it.name, "first": it.first}));
    let text = serde_json::to_vec_pretty(&Value::from_iter(steps)).context("encode the steps")?;
    fs::write(dir.join("steps.json"), text).context("keep the steps")
}

/// The log of a machine that runs, up to a flush. While the machine writes, the last entries may
/// not be whole yet.
fn flushed(recording: &Recording) -> Result<Log> {
    let mut why = None;
    let log = wait::until("a log that is whole", QUIET, || match recording.log() {
        Ok(log) => Ok(Some(log)),
        Err(error) => {
            why = Some(error);
            Ok(None)
        }
    });
    let log = log.map_err(|late| why.unwrap_or(late))?;
    Ok(log.up_to_a_flush())
}

fn act(name: &str, machine: &mut Machine) -> Result<()> {
    match name {
        "apply" | "rollback" => {
            let (code, answer) = guest::osupdate(machine, name, guest::APPLY * PATIENCE)?;
            ensure!(code == 0, "`osupdate {name}` ended with {code}: {answer}");
            Ok(())
        }
        "power off" => {
            // The connection may break before the answer.
            machine.ssh()?.run("poweroff").map(drop)?;
            machine.wait_off(Duration::from_secs(120) * PATIENCE)
        }
        _ => {
            let wanted = if name == "trial boot" { (2, "b") } else { (1, "a") };
            let boot = guest::boot_id(machine)?;
            guest::reboot(machine)?;
            guest::wait_rebooted(machine, &boot, guest::BOOT * PATIENCE)?;
            let (release, slot) = guest::wait_confirmed(machine, guest::BOOT * PATIENCE)?;
            ensure!((release, slot.as_str()) == wanted, "release {release} runs in slot {slot}");
            Ok(())
        }
    }
}

/// The log is complete when all of it, replayed, is the disk that the machine left.
fn check_complete(dir: &Path) -> Result<()> {
    let replayed = dir.join("replayed.raw");
    write_log::flushed_disk(&base_in(dir), &log_in(dir), &replayed)?;
    let (from, to) = (show(&final_in(dir)), show(&replayed));
    qemu_img(&["compare", "-q", "-f", "qcow2", "-F", "raw", &from, &to])
        .context("the log, replayed, is not the disk that the machine left")?;
    println!("    the log, replayed, is the disk that the machine left");
    fs::remove_file(&replayed).with_context(|| format!("remove {}", replayed.display()))
}

fn read_steps(dir: &Path) -> Result<Vec<Step>> {
    let text = fs::read(dir.join("steps.json")).context("read the recording's steps")?;
    let value: Value = serde_json::from_slice(&text).context("parse the recording's steps")?;
    let steps = value.as_array().into_iter().flatten().map(|step| {
        let name = step.get("name")?.as_str()?.to_owned();
        let first = usize::try_from(step.get("first")?.as_u64()?).ok()?;
        Some(Step { name, first })
    });
    steps.collect::<Option<_>>().context("the recording's steps are damaged")
}
