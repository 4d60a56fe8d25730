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

/// A process that gives signs of life, and then none for so long, is dead: the services manager does
/// so twice a second, and a busy machine keeps it waiting for seconds.
const SILENT_MAX_MS: u64 = 60_000;

/// One process under PID 1's care.
#[derive(Debug)]
pub struct Child {
    /// Its name for people.
    pub name: &'static str,
    argv: Vec<String>,
    oom_score_adj: i32,
    state: State,
    pid: Option<Pid>,
    /// When it was last heard, in monotonic milliseconds; none before its first word.
    heard_ms: Option<u64>,
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
            heard_ms: None,
        }
    }

    /// It has given a sign of life.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = Some(now_ms);
    }

    /// Lets its silence begin anew, if it has said anything yet.
    pub fn forgive(&mut self, now_ms: u64) {
        self.heard_ms = self.heard_ms.map(|_| now_ms);
    }

    /// Kills it when it has been silent for too long since its last word: stopped, or stuck. Until its
    /// first word it may take its time.
    pub fn kill_if_silent(&mut self, now_ms: u64) {
        let silent = self.heard_ms.is_some_and(|at| now_ms.saturating_sub(at) >= SILENT_MAX_MS);
        let (true, Some(pid)) = (silent, self.pid) else { return };
        warn(&format!("{} says nothing any more; killing it", self.name));
        self.heard_ms = None;
        // Also a stopped process takes this one; its end is reaped like any other.
        let _ = kill(pid, Signal::SIGKILL);
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
        self.heard_ms = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

    #[test]
    fn who_says_nothing_any_more_is_killed() {
        let mut child = Child::new("sleep", &["/bin/sleep", "1000"], 0);
        child.tick(0);
        let pid = child.pid().unwrap();
        kill(pid, Signal::SIGSTOP).unwrap();
        child.kill_if_silent(10 * SILENT_MAX_MS);
        child.heard(0);
        child.forgive(1000);
        child.kill_if_silent(1000 + SILENT_MAX_MS - 1);
        assert_eq!(kill(pid, None), Ok(()), "it may take its time");
        child.kill_if_silent(1000 + SILENT_MAX_MS);
        let begun = std::time::Instant::now();
        let ended = loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive if begun.elapsed().as_secs() < 10 => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                ended => break ended,
            }
        };
        // Whatever became of it: nothing is left behind.
        let _ = kill(pid, Signal::SIGKILL);
        assert_eq!(ended, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
        child.ended("SIGKILL", 70_000);
        assert_eq!((child.pid(), child.failures()), (None, 1), "it is started again");
    }
}
