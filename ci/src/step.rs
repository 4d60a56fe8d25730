//! Runs a command as a step a person can follow: a name, a spinner with the time and the last
//! line of output, a log file with all of it, and its end shown when it fails.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::place;

/// How often a step says that it is alive where there is no terminal to draw on.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Lines of a failed step's log that are shown.
const TAIL_LINES: usize = 40;

/// How a command ended that ran as a step.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// All that it said, standard output and errors in one file.
    pub log: PathBuf,
    /// How long it took.
    pub took: Duration,
}

/// Runs `command` quietly as the step `name`; its output goes to `target/logs/<name>.log`.
///
/// # Errors
/// The command cannot be started, or ends with a failure: then the end of its log is printed.
pub fn run(name: &str, command: &mut Command) -> Result<()> {
    run_with(name, command, Stdio::piped())
}

fn run_with(name: &str, command: &mut Command, output: Stdio) -> Result<()> {
    let ended = follow_with(name, command, output)?;
    let word = if ended.status.success() { "done" } else { "FAILED" };
    BARS.suspend(|| eprintln!("  {name}: {word} in {:.1} s", ended.took.as_secs_f32()));
    if !ended.status.success() {
        let text = fs::read_to_string(&ended.log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(TAIL_LINES).collect();
        for line in tail.iter().rev() {
            eprintln!("    {line}");
        }
        bail!("step {name} ended with {}, its log is {}", ended.status, ended.log.display());
    }
    Ok(())
}

/// Runs `command` as [`run`] does, and leaves it to the caller what its end means.
///
/// # Errors
/// The command cannot be started, or its log not be written.
pub fn follow(name: &str, command: &mut Command) -> Result<Ended> {
    follow_with(name, command, Stdio::piped())
}

fn follow_with(name: &str, command: &mut Command, output: Stdio) -> Result<Ended> {
    let logs = place::logs();
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    let log_path = logs.join(format!("{}.log", name.replace(['/', ' '], "-")));
    let mut log =
        File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {:?} for step {name}", command.get_program()))?;
    let (sender, lines) = mpsc::channel::<String>();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);

    let mut shown = Shown::begin(name);
    loop {
        match lines.recv_timeout(HEARTBEAT) {
            Ok(line) => {
                writeln!(log, "{line}").context("write the step's log")?;
                shown.line(&line);
            }
            Err(RecvTimeoutError::Timeout) => shown.heartbeat(begun.elapsed()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().context("wait for the step")?;
    shown.end();
    Ok(Ended { status, log: log_path, took: begun.elapsed() })
}

/// Runs `command` as [`run`] does, with its standard output in `file`.
///
/// # Errors
/// As [`run`].
pub fn run_into(name: &str, command: &mut Command, file: File) -> Result<()> {
    run_with(name, command, file.into())
}

/// Runs `command` with its output on ours, under a headline.
///
/// # Errors
/// The command cannot be started or ends with a failure.
pub fn run_shown(name: &str, command: &mut Command) -> Result<()> {
    println!("\n== {name}");
    let status = command.status().with_context(|| format!("start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("step {name} ended with {status}");
    }
    Ok(())
}

/// The standard output of `command`.
///
/// # Errors
/// The command cannot be started or ends with a failure.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?} ended with {}", command.get_program(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn forward(stream: Option<impl Read + Send + 'static>, sender: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
}

/// The spinners of all steps that run now.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A spinner on a terminal, plain lines elsewhere.
enum Shown {
    Spinner(ProgressBar),
    Lines { name: String, last: String },
}

impl Shown {
    fn begin(name: &str) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = BARS.add(ProgressBar::new_spinner());
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            return Shown::Spinner(bar);
        }
        eprintln!("  {name} …");
        Shown::Lines { name: name.to_owned(), last: String::new() }
    }

    fn line(&mut self, text: &str) {
        match self {
            Shown::Spinner(bar) => bar.set_message(text.to_owned()),
            Shown::Lines { last, .. } => text.clone_into(last),
        }
    }

    fn heartbeat(&self, elapsed: Duration) {
        if let Shown::Lines { name, last } = self {
            eprintln!("  {name} … {:.0} s: {last}", elapsed.as_secs_f32());
        }
    }

    fn end(self) {
        if let Shown::Spinner(bar) = self {
            bar.finish_and_clear();
        }
    }
}
