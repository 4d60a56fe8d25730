//! The few processes that PID 1 itself keeps up: the record helper, containerd, the services
//! manager; and, when containerd will not start, the services that keep a machine reachable.

use crate::console::warn;
use crate::services::supervisor::{Action, Event, Policy, State};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Starts of containerd in a row that may fail before the machine goes on without it.
pub const CONTAINERD_FAILURES_MAX: u32 = 5;

/// One process under PID 1's care.
#[derive(Debug)]
pub struct Child {
    /// Its name for people.
    pub name: &'static str,
    argv: Vec<String>,
    oom_score_adj: i32,
    state: State,
    pid: Option<Pid>,
}

impl Child {
    /// A process that is to run; it starts at the next [`Self::tick`].
    #[must_use]
    pub fn new(name: &'static str, argv: &[&str], oom_score_adj: i32) -> Self {
        Self {
            name,
            argv: argv.iter().map(ToString::to_string).collect(),
            oom_score_adj,
            state: State::Waiting,
            pid: None,
        }
    }

    /// Failures in a row so far.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.state.failures()
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Starts it when its time has come.
    pub fn tick(&mut self, now_ms: u64) {
        let event = if self.state == State::Waiting { Event::Ready } else { Event::Tick };
        self.step(event, now_ms);
    }

    /// Its process was reaped.
    pub fn ended(&mut self, how: &str, now_ms: u64) {
        self.pid = None;
        if !matches!(self.state, State::Stopping { .. } | State::Stopped) {
            warn(&format!("{} ended: {how}", self.name));
        }
        self.step(Event::Ended { well: false }, now_ms);
    }

    /// Asks it to end and keeps it down.
    pub fn stop(&mut self, now_ms: u64) {
        self.step(Event::Stop, now_ms);
    }

    fn step(&mut self, event: Event, now_ms: u64) {
        let (state, action) = self.state.step(Policy::DAEMON, event, now_ms);
        self.state = state;
        match action {
            Action::None => {}
            Action::Start => {
                let started = self.start();
                self.step(
                    if started { Event::Started } else { Event::Ended { well: false } },
                    now_ms,
                );
            }
            Action::Stop => {
                if let Some(pid) = self.pid {
                    // It may have ended just now.
                    let _ = kill(pid, Signal::SIGTERM);
                }
            }
        }
    }

    fn start(&mut self) -> bool {
        let Some((program, args)) = self.argv.split_first() else { return false };
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .process_group(0);
        self.redirect(&mut command);
        match kernel_abi::signals::unblocked(&mut command).spawn() {
            Ok(child) => {
                self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
                let path = format!("/proc/{}/oom_score_adj", child.id());
                if let Err(error) = std::fs::write(path, self.oom_score_adj.to_string()) {
                    warn(&format!("protect {}: {error}", self.name));
                }
                true
            }
            Err(error) => {
                warn(&format!("start {}: {error}", self.name));
                false
            }
        }
    }

    /// Its output goes to a file on /run that begins anew with each start: never to a console that
    /// could make it wait.
    fn redirect(&self, command: &mut Command) {
        let path = format!("/run/bascule/log/{}.log", self.name);
        let file = std::fs::File::create(path);
        let (out, err) = match file.and_then(|file| Ok((file.try_clone()?, file))) {
            Ok((out, err)) => (Stdio::from(out), Stdio::from(err)),
            Err(_) => (Stdio::null(), Stdio::null()),
        };
        command.stdout(out).stderr(err);
    }
}
