//! PID 1's loop: one turn handles what has come and looks at the clock.

use super::ask_record::{Answered, RecordLine};
use super::decide::{self, Gate};
use crate::boot_facts::BootFacts;
use crate::console::{say, warn};
use crate::control::{self, Request, Status, Told};
use crate::initrd::ROOT_DEVICE;
use crate::services::built_in;
use crate::shutdown::{How, leave};
use crate::supervise::{CONTAINERD_FAILURES_MAX, Child};
use crate::watchdog::Petted;
use kernel_abi::device_mapper::DeviceMapper;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use partition_layout::boot_state::{Action, Blame, Event, OVERDUE_MAX};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TURN_MS: u16 = 200;
/// A turn that took longer than this was none of the loop's own making.
const LONG_TURN_MS: u64 = 5_000;
/// How often verity is asked whether it has seen corruption.
const VERITY_EVERY: Duration = Duration::from_secs(5);
/// How long the services have to stop in order.
const SERVICES_STOP_MAX: Duration = Duration::from_secs(30);
/// A caller on the control socket that is slower than this is let go.
const CALLER_MAX: Duration = Duration::from_millis(100);

struct Stopping {
    how: How,
    since: Instant,
    clean_pending: bool,
}

/// Everything that PID 1 holds.
pub struct Loop {
    origin: Instant,
    /// When the last turn looked at its children, in monotonic milliseconds.
    turned_ms: u64,
    watchdog: Petted,
    facts: BootFacts,
    judges: bool,
    children: Vec<Child>,
    without_containerd: bool,
    record: Option<RecordLine>,
    gate: Gate,
    status: Status,
    mapper: Option<DeviceMapper>,
    verity_asked: Instant,
    verity_told: bool,
    stopping: Option<Stopping>,
}

impl Loop {
    /// Everything is set up; nothing runs yet. `judges` is whether a gate that passes says anything
    /// of the slot: not where state cannot be used.
    #[must_use]
    pub fn new(watchdog: Petted, facts: BootFacts, judges: bool) -> Self {
        let children = vec![
            Child::new("record", &["/usr/lib/bascule/os-init", "record"], -1000),
            Child::new(
                "containerd",
                &["/usr/bin/containerd", "-c", super::CONTAINERD_CONFIG],
                -999,
            ),
            Child::new("os-services", &["/usr/lib/bascule/os-services"], -999),
        ];
        // Before any thread: a thread that does not block them would take them from the loop.
        if let Err(error) = handled().thread_block() {
            warn(&format!("block signals: {error}"));
        }
        let record = RecordLine::start().map_err(|e| warn(&format!("record thread: {e}"))).ok();
        let status = Status { gate: control::WAITING.into(), ..Status::default() };
        Self {
            origin: Instant::now(),
            turned_ms: 0,
            watchdog,
            facts,
            judges,
            children,
            without_containerd: false,
            record,
            gate: Gate::Open { since_ms: 0, missing: "os-services has not reported".into() },
            status,
            mapper: DeviceMapper::open(Path::new("/dev/mapper/control")).ok(),
            verity_asked: Instant::now(),
            verity_told: false,
            stopping: None,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell_record(&self, event: Event) {
        if let Some(record) = &self.record {
            record.ask(event);
        }
    }

    /// Loops for ever.
    pub fn run(mut self, boot_status: u32) -> ExitCode {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = match SignalFd::with_flags(&handled(), flags) {
            Ok(signals) => signals,
            Err(error) => {
                warn(&format!("receive signals: {error}; rebooting"));
                leave(How::Reboot, &mut || self.watchdog.pet());
            }
        };
        // Ctrl-Alt-Del comes as a signal and is an ordinary reboot.
        let _ = nix::sys::reboot::set_cad_enabled(false);
        let listener = listen();
        let nonce = partition_layout::verity::unhex(&self.facts.boot_id).unwrap_or_default();
        self.tell_record(Event::Started { nonce, watchdog: boot_status });
        self.tell_record(Event::GateOpen);
        say("starting containerd and the services");
        loop {
            self.turn(&signals, listener.as_ref());
        }
    }

    fn turn(&mut self, signals: &SignalFd, listener: Option<&UnixListener>) {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(listener.map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        // An interrupted poll is a short turn.
        let _ = poll(&mut fds, PollTimeout::from(TURN_MS));
        self.watchdog.pet();
        while let Ok(Some(signal)) = signals.read_signal() {
            match i32::try_from(signal.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok()) {
                Some(Signal::SIGINT | Signal::SIGTERM) => self.stop(How::Reboot, true),
                Some(Signal::SIGPWR) => self.stop(How::Poweroff, true),
                Some(_) | None => {}
            }
        }
        self.reap();
        while let Some(Ok((stream, _))) = listener.map(UnixListener::accept) {
            self.serve(stream);
        }
        while let Some(answer) = self.record.as_ref().and_then(RecordLine::answer) {
            self.answered(answer);
        }
        let now = self.now_ms();
        // Where the whole machine stood still, nobody could say anything.
        let stood_still = now.saturating_sub(self.turned_ms) > LONG_TURN_MS;
        self.turned_ms = now;
        for child in &mut self.children {
            if stood_still {
                child.forgive(now);
            }
            child.kill_if_silent(now);
            child.tick(now);
        }
        self.go_on_without_containerd();
        self.watch_verity();
        self.step_gate(decide::Event::Tick);
        self.finish_stopping();
    }

    fn reap(&mut self) {
        let now = self.now_ms();
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, how) = match status {
                WaitStatus::Exited(pid, code) => (pid, format!("status {code}")),
                WaitStatus::Signaled(pid, signal, _) => (pid, format!("{signal}")),
                _ => return,
            };
            for child in self.children.iter_mut().filter(|child| child.pid() == Some(pid)) {
                child.ended(&how, now);
            }
        }
    }

    fn serve(&mut self, mut stream: UnixStream) {
        let bounded = stream
            .set_read_timeout(Some(CALLER_MAX))
            .and_then(|()| stream.set_write_timeout(Some(CALLER_MAX)));
        let mut buffer = [0; control::REQUEST_MAX];
        let read = bounded.and_then(|()| stream.read(&mut buffer)).unwrap_or(0);
        let line = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
        let answer = match control::parse(&line) {
            Ok(request) => self.answer(request),
            Err(why) => serde_json::json!({ "error": why }).to_string(),
        };
        // A caller that does not listen loses its answer.
        let _ = stream.write_all(format!("{answer}\n").as_bytes());
    }

    fn answer(&mut self, request: Request) -> String {
        match request {
            Request::Status => {
                if let Gate::Open { missing, .. } = &self.gate {
                    self.status.reason.clone_from(missing);
                }
                serde_json::to_string(&self.status).unwrap_or_default()
            }
            Request::Reboot => self.stop_by_request(How::Reboot),
            Request::Poweroff => self.stop_by_request(How::Poweroff),
            Request::Gate { verdict, reason } => {
                let now = self.now_ms();
                for child in self.children.iter_mut().filter(|it| it.name == "os-services") {
                    child.heard(now);
                }
                self.step_gate(decide::Event::Told(verdict, reason));
                "{\"ok\":true}".into()
            }
        }
    }

    fn stop_by_request(&mut self, how: How) -> String {
        self.stop(how, true);
        "{\"ok\":true}".into()
    }

    fn step_gate(&mut self, event: decide::Event) {
        // With a broken state partition a gate that passes proves nothing about the slot; one that
        // fails speaks against nothing but the state, also where that is only full.
        let told_passed = matches!(event, decide::Event::Told(Told::Passed, _));
        if told_passed && !self.judges {
            if matches!(self.gate, Gate::Open { .. }) {
                self.gate = Gate::Decided;
                self.decided("degraded", "the state partition is broken; the slot is not judged");
            }
            return;
        }
        let now = self.now_ms();
        let gate = std::mem::replace(&mut self.gate, Gate::Decided);
        let (gate, action) = gate.step(event, now);
        self.gate = gate;
        match action {
            decide::Action::None => {}
            decide::Action::Confirm => self.tell_record(Event::Confirm),
            decide::Action::Fail(reason) => {
                warn(&format!("gate failed: {reason}"));
                self.status.reason = reason;
                let blame = if self.facts.state == "ok" { Blame::Slot } else { Blame::State };
                self.tell_record(Event::GateFailed { blame });
            }
        }
    }

    fn decided(&mut self, gate: &str, reason: &str) {
        self.status.gate = gate.into();
        self.status.reason = reason.into();
        self.status.decided_s = std::fs::read_to_string("/proc/uptime")
            .ok()
            .and_then(|text| text.split('.').next()?.parse().ok());
    }

    fn note(&mut self, line: String) {
        const NOTES_MAX: usize = 32;
        warn(&line);
        if self.status.notes.len() < NOTES_MAX {
            self.status.notes.push(line);
        }
    }

    fn answered(&mut self, (event, answer): Answered) {
        let clean = matches!(event, Event::CleanStop);
        if let (true, Some(stopping)) = (clean, &mut self.stopping) {
            stopping.clean_pending = false;
        }
        let (action, record) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.note(format!("boot record: {event:?}: {error}"));
                if event == Event::Confirm {
                    self.not_durable(&error.to_string());
                }
                return;
            }
        };
        if event == Event::Confirm && decide::is_stale(action, &record, &self.facts.boot_id) {
            return self.not_durable("what it says is of an earlier boot");
        }
        match event {
            Event::Started { .. } if record.last.overdue >= OVERDUE_MAX => {
                self.tell_record(Event::Overdue);
            }
            Event::Confirm if action == Action::Reboot => {
                self.gate = Gate::Decided;
                self.decided("failed", "this release is being left, by a rollback or a stop");
            }
            Event::Confirm => {
                self.gate = Gate::Decided;
                self.decided("confirmed", "");
                say(&format!(
                    "boot confirmed: slot {}, release {}",
                    record.default, self.facts.version
                ));
            }
            Event::GateFailed { .. } => {
                self.gate = Gate::Decided;
                let reason = self.status.reason.clone();
                self.decided("failed", &reason);
            }
            _ => {}
        }
        match action {
            Action::Reboot => self.stop(How::Reboot, false),
            Action::StayDegraded => {
                self.note("there is no better slot to go to; staying up, degraded".into());
            }
            Action::None => {}
        }
    }

    /// Not durable, so not confirmed: the deadline runs on from anew.
    fn not_durable(&mut self, why: &str) {
        let missing = format!("the boot record cannot be written: {why}");
        self.gate = Gate::Open { since_ms: self.now_ms(), missing };
    }

    fn watch_verity(&mut self) {
        if self.verity_told || self.verity_asked.elapsed() < VERITY_EVERY {
            return;
        }
        self.verity_asked = Instant::now();
        let corrupt = self
            .mapper
            .as_ref()
            .and_then(|mapper| mapper.status(ROOT_DEVICE).ok())
            .is_some_and(|status| status.starts_with('C'));
        if corrupt {
            self.verity_told = true;
            self.note("verity found a corrupted block in the running slot".into());
            self.tell_record(Event::VerityError);
        }
    }

    /// When containerd will not start, what keeps the machine reachable and mendable runs without.
    fn go_on_without_containerd(&mut self) {
        let failing = |child: &Child| {
            child.name == "containerd" && child.failures() >= CONTAINERD_FAILURES_MAX
        };
        if self.without_containerd || !self.children.iter().any(failing) {
            return;
        }
        self.without_containerd = true;
        // For good: a containerd that came back would start the same services a second time.
        let now = self.now_ms();
        for child in self.children.iter_mut().filter(|child| child.name == "containerd") {
            child.stop(now);
        }
        self.note(
            "containerd does not start; running network, console and updater directly".into(),
        );
        for name in ["network", "console", "updater"] {
            match built_in::one(name) {
                Ok(file) => {
                    let argv = ["/usr/lib/bascule/os-init", "direct", name];
                    self.children.push(Child::new(name, &argv, file.oom_score_adj));
                }
                Err(why) => self.note(why),
            }
        }
    }

    fn stop(&mut self, how: How, clean: bool) {
        if self.stopping.is_some() {
            return;
        }
        let word = if how == How::Reboot { "rebooting" } else { "switching off" };
        say(word);
        // A stop at the gate's failure is no clean one: the try stays spent.
        if clean {
            self.tell_record(Event::CleanStop);
        }
        let now = self.now_ms();
        for child in self.children.iter_mut().filter(|child| child.name == "os-services") {
            child.stop(now);
        }
        self.stopping = Some(Stopping { how, since: Instant::now(), clean_pending: clean });
    }

    fn finish_stopping(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        let services_run =
            self.children.iter().any(|c| c.name == "os-services" && c.pid().is_some());
        let waiting = services_run || stopping.clean_pending;
        if waiting && stopping.since.elapsed() < SERVICES_STOP_MAX {
            return;
        }
        let how = stopping.how;
        leave(how, &mut || self.watchdog.pet());
    }
}

/// The signals that the loop reads.
fn handled() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR])
}

fn listen() -> Option<UnixListener> {
    let tried = || -> std::io::Result<UnixListener> {
        let listener = UnixListener::bind(control::SOCKET)?;
        std::fs::set_permissions(control::SOCKET, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    tried().map_err(|e| warn(&format!("listen at {}: {e}", control::SOCKET))).ok()
}
