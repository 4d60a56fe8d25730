//! Rebuilt disks in real machines: from the firmware to the health gate, several at a time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::judge::Started;
use super::timeline::{Cut, Run, SECTOR};
use crate::guest::{BOOT, CONFIRMED};
use crate::host_tool::show;
use crate::machine::{Machine, Options, qemu_img};
use crate::write_log::{Kind, Log};
use crate::{artifacts, wait};

/// What PID 1 says where it stays up without judging its slot: the state partition is no slot's
/// fault.
const STATE_BROKEN: &str = "the state partition is broken; the slot is not judged";
/// A boot is worth waiting for, however busy the host is.
const PATIENCE: u32 = 3;

/// A cut to boot from, and what was named.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The cut.
    pub cut: Cut,
    /// The operation that was cut.
    pub operation: String,
    /// What the loader must start.
    pub started: Started,
}

/// What a real machine did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Confirmed, from the slot that was named.
    Confirmed,
    /// Up, without state; the slot is not judged.
    Degraded,
    /// Something else.
    Failed(String),
}

/// A disk to rebuild and boot.
pub struct Job {
    /// Its number, from 0.
    pub number: usize,
    /// The disk before the log.
    pub base: PathBuf,
    /// The log, as far as it is needed.
    pub log: Arc<Log>,
    /// The cut.
    pub sample: Sample,
}

/// Boots what comes through `jobs` until nothing comes any more; `told` hears each outcome.
///
/// # Errors
/// A disk cannot be made, or a machine cannot be started.
pub fn work(jobs: &Mutex<Receiver<Job>>, told: impl Fn(&Job, Outcome, &str)) -> Result<()> {
    loop {
        let job = jobs.lock().unwrap_or_else(|it| it.into_inner()).recv();
        let Ok(job) = job else { return Ok(()) };
        let begun = Instant::now();
        let (outcome, computed) =
            boot(&job).with_context(|| format!("boot number {}", job.number))?;
        let (took, computed) = (begun.elapsed().as_secs(), computed.as_secs());
        told(&job, outcome, &format!("{took} s, {computed} s of a processor"));
    }
}

/// The outcome, and the processor time that the machine took.
fn boot(job: &Job) -> Result<(Outcome, Duration)> {
    let Job { number, base, log, sample } = job;
    let name = format!("prove-boot-{number}");
    let disk = artifacts::work_dir().join(format!("{name}.raw"));
    let mut machine = Machine::prepare(Options::new(&name, base))?;
    write_out(base, log, &sample.cut, &disk)?;
    // The overlay is made anew, over the disk that was only made once there was a place to run it.
    crate::machine::overlay(&disk, &machine.disk_file())?;
    let outcome = machine.power_on().and_then(|()| watch(&mut machine, sample.started));
    let computed = machine.processor_time();
    drop(machine);
    fs::remove_file(&disk).with_context(|| format!("remove {}", disk.display()))?;
    Ok((outcome?, computed))
}

/// Waits until the machine is confirmed, or is up without state.
fn watch(machine: &mut Machine, named: Started) -> Result<Outcome> {
    let wanted = format!("{CONFIRMED}: slot {},", named.slot);
    let seen = wait::until("the boot to be confirmed", BOOT * PATIENCE, || {
        machine.check_running()?;
        let serial = machine.serial();
        if serial.contains(STATE_BROKEN) {
            return Ok(Some(Outcome::Degraded));
        }
        let line = serial.lines().find(|line| line.contains(CONFIRMED));
        Ok(line.map(|line| match line.contains(&wanted) {
            true => Outcome::Confirmed,
            false => Outcome::Failed(format!("slot {} was named, and: {line}", named.slot)),
        }))
    });
    let outcome = match seen {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    Ok(match outcome {
        Outcome::Failed(why) => {
            Outcome::Failed(format!("{why}\nserial line ends with:\n{}", machine.serial_tail()))
        }
        other => other,
    })
}

/// Makes `out`, a raw disk: `base` with what the cut left on it.
///
/// # Errors
/// A file cannot be read or written.
pub fn write_out(base: &Path, log: &Log, cut: &Cut, out: &Path) -> Result<()> {
    let (from, to) = (show(base), show(out));
    qemu_img(&["convert", "-f", "raw", "-O", "raw", "-S", "64k", &from, &to])?;
    let disk = File::options().write(true).open(out);
    let disk = disk.with_context(|| format!("open {}", out.display()))?;
    ensure!(cut.flushed <= log.entries().len(), "the log has no entry {}", cut.flushed);
    for entry in 0..cut.flushed {
        write_run(log, Run { entry, skip: 0, sectors: u64::MAX }, &disk)?;
    }
    cut.kept.iter().try_for_each(|run| write_run(log, *run, &disk))
}

fn write_run(log: &Log, run: Run, disk: &File) -> Result<()> {
    let Some(entry) = log.entries().get(run.entry) else { bail!("no entry {}", run.entry) };
    let Kind::Write { data_at, .. } = entry.kind else { return Ok(()) };
    let skip = run.skip * SECTOR;
    let length = entry.length.saturating_sub(skip).min(run.sectors.saturating_mul(SECTOR));
    let mut data = vec![0; usize::try_from(length).context("length of a write")?];
    log.read(data_at + skip, &mut data).with_context(|| format!("read entry {}", run.entry))?;
    disk.write_all_at(&data, entry.at + skip).context("write a rebuilt disk")
}
