//! Rebuilt disks in real machines: from the firmware to the health gate, several at a time.
//!
//! A machine computes until its services are up, and waits for its health gate as long again. Only
//! as many compute as there are processors: more would take longer, all of them together, and then
//! leave the processors idle while all of them wait.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::judge::Started;
use super::timeline::{Cut, Run, SECTOR};
use crate::guest::{BOOT, CONFIRMED, CONSOLE};
use crate::host_tool::show;
use crate::machine::{Machine, Options, qemu_img};
use crate::write_log::{Kind, Log};
use crate::{artifacts, wait};

/// What PID 1 says where it cannot use the state partition: no power cut may leave it so.
const STATE_BROKEN: &str = "os-init: state is degraded";
/// A boot is worth waiting for, however busy the host is.
const PATIENCE: u32 = 3;

/// The right to compute, for so many at a time.
pub struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// One of them; given back when dropped.
struct Permit<'a>(&'a Permits);

impl Permits {
    /// One for each processor.
    #[must_use]
    pub fn for_processors() -> Self {
        let free = thread::available_parallelism().map_or(1, usize::from);
        Self { free: Mutex::new(free), given_back: Condvar::new() }
    }

    fn take(&self) -> Permit<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.given_back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}

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

/// Boots what comes through `jobs` until nothing comes any more, or `ended` says that it is in vain;
/// `told` hears each outcome.
///
/// # Errors
/// A disk cannot be made, or a machine cannot be started; then it has said so to the others.
pub fn work(
    jobs: &Mutex<Receiver<Job>>,
    permits: &Permits,
    ended: &AtomicBool,
    told: impl Fn(&Job, Outcome, &str),
) -> Result<()> {
    let done = take_jobs(jobs, permits, ended, told);
    if done.is_err() {
        ended.store(true, Ordering::Relaxed);
    }
    done
}

fn take_jobs(
    jobs: &Mutex<Receiver<Job>>,
    permits: &Permits,
    ended: &AtomicBool,
    told: impl Fn(&Job, Outcome, &str),
) -> Result<()> {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return Ok(()) };
        if ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let begun = Instant::now();
        let (outcome, computed) =
            boot(&job, permits).with_context(|| format!("boot number {}", job.number))?;
        let (took, computed) = (begun.elapsed().as_secs(), computed.as_secs());
        told(&job, outcome, &format!("{took} s, {computed} s of a processor"));
    }
}

/// The outcome, and the processor time that the machine took.
fn boot(job: &Job, permits: &Permits) -> Result<(Outcome, Duration)> {
    let Job { number, base, log, sample } = job;
    let name = format!("prove-boot-{number}");
    let disk = artifacts::work_dir().join(format!("{name}.raw"));
    write_out(base, log, &sample.cut, &disk)?;
    // In this order: whoever waits here has no machine's place that another could use.
    let permit = permits.take();
    let mut machine = Machine::prepare(Options::new(&name, &disk))?;
    let outcome = machine.power_on().and_then(|()| {
        wait_up(&mut machine);
        drop(permit);
        watch(&mut machine, sample.started)
    });
    let computed = machine.processor_time();
    drop(machine);
    fs::remove_file(&disk).with_context(|| format!("remove {}", disk.display()))?;
    Ok((outcome?, computed))
}

/// Waits until the machine computes no more; what became of it is not asked here.
fn wait_up(machine: &mut Machine) {
    let ends = [CONSOLE, CONFIRMED, STATE_BROKEN];
    let _ = wait::until("the services to start", BOOT, || {
        machine.check_running()?;
        let serial = machine.serial();
        Ok(ends.iter().any(|end| serial.contains(end)).then_some(()))
    });
}

/// Waits until the machine is confirmed, with its state.
fn watch(machine: &mut Machine, named: Started) -> Result<Outcome> {
    let wanted = format!("{CONFIRMED}: slot {},", named.slot);
    let seen = wait::until("the boot to be confirmed", BOOT * PATIENCE, || {
        machine.check_running()?;
        let serial = machine.serial();
        if serial.contains(STATE_BROKEN) {
            return Ok(Some(Outcome::Failed("the state partition is broken".into())));
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
