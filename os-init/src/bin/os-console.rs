//! First process of the `console` service: keeps sshd and the logins on the local terminals
//! running, and reaps what they leave behind.
//!
//! It ends when sshd cannot be kept running, so that the services manager sees it; a terminal that
//! does not exist is left alone, and a login that ends at once is started again slowly.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A program that ends sooner than this has failed.
const SETTLED: Duration = Duration::from_secs(10);
/// Pause before a failed program is started again: a getty on a dead line must not burn a core.
const PAUSE: Duration = Duration::from_secs(10);
/// sshd failures in a row after which this service ends.
const SSHD_FAILURES_MAX: u32 = 3;

struct Program {
    argv: Vec<&'static str>,
    terminal: Option<&'static str>,
    pid: Option<Pid>,
    started: Instant,
    failures: u32,
    not_before: Instant,
}

impl Program {
    fn new(terminal: Option<&'static str>, argv: Vec<&'static str>) -> Self {
        let now = Instant::now();
        Self { argv, terminal, pid: None, started: now, failures: 0, not_before: now }
    }

    fn start(&mut self, now: Instant) {
        let Some((program, args)) = self.argv.split_first() else { return };
        self.started = now;
        let mut command = Command::new(program);
        command.args(args).process_group(0);
        match kernel_abi::signals::unblocked(&mut command).spawn() {
            Ok(child) => self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw),
            Err(error) => {
                eprintln!("console: start {program}: {error}");
                self.ended(now);
            }
        }
    }

    fn ended(&mut self, now: Instant) {
        self.pid = None;
        let failed = now.duration_since(self.started) < SETTLED;
        // Once in a row: it may go on so for ever.
        if failed && self.failures == 0 {
            eprintln!("console: {} ended at once", self.argv.join(" "));
        }
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.not_before = if failed { now + PAUSE } else { now };
    }
}

/// Whether there is a line behind a terminal. A serial port that is configured but absent can be opened,
/// and then takes nothing, not even no bytes.
fn exists(terminal: &str) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(format!("/dev/{terminal}"))
        .and_then(|mut line| line.write(&[]))
        .is_ok()
}

fn getty(terminal: &'static str, kind: &'static str) -> Program {
    let speed = if terminal.starts_with("ttyS") { "115200" } else { "38400" };
    let argv = vec!["/sbin/agetty", "--noclear", "--local-line", speed, terminal, kind];
    Program::new(Some(terminal), argv)
}

fn main() -> ExitCode {
    // The first process of a PID namespace gets no signal that it does not ask for: TERM is read
    // from a descriptor.
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    let signals = match set
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
    {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("console: receive signals: {error}");
            return ExitCode::from(111);
        }
    };
    let sshd = vec!["/usr/sbin/sshd", "-D", "-e"];
    let mut programs =
        vec![Program::new(None, sshd), getty("ttyS0", "vt220"), getty("tty1", "linux")];
    programs.retain(|program| program.terminal.is_none_or(exists));
    loop {
        let now = Instant::now();
        for program in &mut programs {
            if program.pid.is_none() && now >= program.not_before {
                program.start(now);
            }
        }
        reap(&mut programs, now);
        let sshd_lost = programs.first().is_some_and(|p| p.failures >= SSHD_FAILURES_MAX);
        if sshd_lost {
            eprintln!("console: sshd ended {SSHD_FAILURES_MAX} times in a row, giving up");
            return ExitCode::from(111);
        }
        if matches!(signals.read_signal(), Ok(Some(_))) {
            return ExitCode::SUCCESS;
        }
        sleep(Duration::from_millis(500));
    }
}

fn reap(programs: &mut [Program], now: Instant) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = status else { return };
        for program in programs.iter_mut().filter(|program| program.pid == Some(pid)) {
            program.ended(now);
        }
    }
}
