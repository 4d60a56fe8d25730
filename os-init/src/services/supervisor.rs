//! When a service is started, restarted and waited for: one enum of states, one match.
//!
//! Pure: `now_ms` is monotonic and an argument; the caller performs the returned [`Action`].

use super::file::Restart;

/// The first pause before a restart, in milliseconds; it doubles with each failure in a row.
pub const BACKOFF_FIRST_MS: u64 = 500;
/// The longest pause before a restart: long enough not to burn a core, short enough that a
/// service whose cause has gone is back within half a minute.
pub const BACKOFF_MAX_MS: u64 = 30_000;
/// The pause after a start that the runtime could not perform, in milliseconds.
pub const DELAY_MS: u64 = 2_000;
/// A service that ran this long is healthy again: its next pause is the first one.
pub const SETTLED_MS: u64 = 60_000;

/// What is wanted of a service in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// It is to end with status 0, once at each start.
    pub oneshot: bool,
    /// When it is started again.
    pub restart: Restart,
    /// It is asked whether it is well, and has to say so before others may rely on it.
    pub asked: bool,
}

impl Policy {
    /// It runs for ever.
    pub const DAEMON: Self = Self { oneshot: false, restart: Restart::Always, asked: false };
}

/// Where one service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits for the services it starts after.
    Waiting,
    /// Being started.
    Starting {
        /// Failures in a row before this start.
        failures: u32,
    },
    /// Its process runs.
    Running {
        /// Monotonic milliseconds when it came up.
        since_ms: u64,
        /// Failures in a row before this start.
        failures: u32,
        /// It has said that it is well, or is not asked.
        well: bool,
    },
    /// It ended and will be started again.
    Pausing {
        /// Monotonic milliseconds of the next start.
        until_ms: u64,
        /// Failures in a row.
        failures: u32,
    },
    /// It was asked to end and has not yet.
    Stopping {
        /// Whether it is started again once it has.
        again: bool,
    },
    /// Scheduled, and not due yet since it was taken up.
    Resting,
    /// Not running, on request.
    Stopped,
    /// It ended as it should, and is not started again by itself.
    Done,
    /// It ended as it should not, and is not started again by itself.
    Failed,
}

/// What happened to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Everything it starts after is running.
    Ready,
    /// Its process is up.
    Started,
    /// It has said that it is well.
    Well,
    /// Its process ended; not `well` where it could not even be started.
    Ended {
        /// With status 0.
        well: bool,
    },
    /// It could not be started now for no fault of its own: the runtime is busy or away.
    Delayed,
    /// Time went by.
    Tick,
    /// It shall run, although it does not.
    Start,
    /// It shall stop and stay stopped.
    Stop,
    /// Its time has come.
    Due,
    /// It shall run when its time comes, if it does not run now.
    Schedule,
}

/// What the caller does next.
#[must_use = "the state has already moved on; an action left out is a service left behind"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start the container.
    Start,
    /// Stop the container.
    Stop,
}

/// The pause after so many failures in a row.
pub fn backoff_ms(failures: u32) -> u64 {
    BACKOFF_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MAX_MS)
}

impl State {
    /// The next state and what to do about it.
    pub fn step(self, policy: Policy, event: Event, now_ms: u64) -> (Self, Action) {
        match (self, event) {
            (Self::Waiting, Event::Ready) => (Self::Starting { failures: 0 }, Action::Start),
            (Self::Waiting | Self::Pausing { .. }, Event::Stop) => (Self::Stopped, Action::None),
            (Self::Starting { failures }, Event::Started) => {
                let well = !policy.asked;
                (Self::Running { since_ms: now_ms, failures, well }, Action::None)
            }
            (Self::Running { since_ms, failures, .. }, Event::Well) => {
                (Self::Running { since_ms, failures, well: true }, Action::None)
            }
            (Self::Starting { failures }, Event::Ended { .. }) => {
                (ended(policy, false, failures.saturating_add(1), now_ms), Action::None)
            }
            (Self::Starting { failures }, Event::Delayed) => {
                let until_ms = now_ms.saturating_add(DELAY_MS);
                (Self::Pausing { until_ms, failures }, Action::None)
            }
            (Self::Starting { .. } | Self::Running { .. }, Event::Stop) => {
                (Self::Stopping { again: false }, Action::Stop)
            }
            (Self::Running { since_ms, failures, .. }, Event::Ended { well }) => {
                let settled = now_ms.saturating_sub(since_ms) >= SETTLED_MS;
                let failures = if settled { 1 } else { failures.saturating_add(1) };
                (ended(policy, well, failures, now_ms), Action::None)
            }
            // Nobody waits for it any more, and it may run on: the next start adopts it.
            (Self::Running { failures, .. }, Event::Delayed) => {
                let until_ms = now_ms.saturating_add(DELAY_MS);
                (Self::Pausing { until_ms, failures }, Action::None)
            }
            (Self::Pausing { until_ms, failures }, Event::Tick) if now_ms >= until_ms => {
                (Self::Starting { failures }, Action::Start)
            }
            (Self::Pausing { failures, .. }, Event::Start) => {
                (Self::Starting { failures }, Action::Start)
            }
            (Self::Stopping { .. }, Event::Start) => (Self::Stopping { again: true }, Action::None),
            // Once more: the first time it may not have been heard.
            (Self::Stopping { .. }, Event::Stop) => (Self::Stopping { again: false }, Action::Stop),
            // The start that was under way when it was asked to end.
            (Self::Stopping { .. }, Event::Started) => (self, Action::Stop),
            (Self::Stopping { again: true }, Event::Ended { .. } | Event::Delayed) => {
                (Self::Starting { failures: 0 }, Action::Start)
            }
            (Self::Stopping { again: false }, Event::Ended { .. } | Event::Delayed) => {
                (Self::Stopped, Action::None)
            }
            (Self::Stopped | Self::Resting | Self::Done | Self::Failed, Event::Start)
            | (Self::Resting | Self::Done | Self::Failed, Event::Due) => {
                (Self::Waiting, Action::None)
            }
            (Self::Stopped | Self::Done | Self::Failed, Event::Schedule) => {
                (Self::Resting, Action::None)
            }
            (Self::Resting | Self::Done | Self::Failed, Event::Stop) => {
                (Self::Stopped, Action::None)
            }
            (Self::Waiting, _)
            | (Self::Starting { .. } | Self::Running { .. } | Self::Pausing { .. }, _)
            | (Self::Stopping { .. } | Self::Stopped | Self::Resting, _)
            | (Self::Done | Self::Failed, _) => (self, Action::None),
        }
    }

    /// Whether a service that only starts after this one need not wait any more.
    pub fn is_past(self) -> bool {
        self.is_fulfilled() || self.is_down()
    }

    /// Whether it does not run and has failed, or is not going to be started.
    pub fn is_down(self) -> bool {
        match self {
            Self::Stopped | Self::Resting | Self::Failed => true,
            Self::Pausing { failures, .. } => failures > 0,
            _ => false,
        }
    }

    /// Whether a service that requires this one may start.
    pub fn is_fulfilled(self) -> bool {
        matches!(self, Self::Running { well: true, .. } | Self::Done)
    }

    /// Failures in a row so far.
    pub fn failures(self) -> u32 {
        match self {
            Self::Starting { failures }
            | Self::Running { failures, .. }
            | Self::Pausing { failures, .. } => failures,
            Self::Waiting
            | Self::Stopping { .. }
            | Self::Stopped
            | Self::Resting
            | Self::Done
            | Self::Failed => 0,
        }
    }

    /// The word for people and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Pausing { .. } => "restarting",
            Self::Stopping { .. } => "stopping",
            Self::Stopped => "stopped",
            Self::Resting => "resting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// After an end, `well` or not, that makes so many failures in a row.
fn ended(policy: Policy, well: bool, failures: u32, now_ms: u64) -> State {
    let again = match (policy.restart, policy.oneshot && well) {
        (_, true) | (Restart::Never, _) => false,
        (Restart::OnFailure, _) => !well,
        (Restart::Always, _) => true,
    };
    match (again, well) {
        (true, _) => {
            State::Pausing { until_ms: now_ms.saturating_add(backoff_ms(failures)), failures }
        }
        (false, true) => State::Done,
        (false, false) => State::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONESHOT: Policy = Policy { oneshot: true, restart: Restart::Never, asked: false };
    const EVENTS: [Event; 9] = [
        Event::Ready,
        Event::Started,
        Event::Well,
        Event::Ended { well: true },
        Event::Ended { well: false },
        Event::Delayed,
        Event::Tick,
        Event::Start,
        Event::Stop,
    ];
    const ENDED: Event = Event::Ended { well: false };

    /// A daemon's.
    fn step(state: State, event: Event, now_ms: u64) -> (State, Action) {
        state.step(Policy::DAEMON, event, now_ms)
    }

    #[test]
    fn a_service_that_dies_is_started_again_with_growing_pauses() {
        let mut state = State::Waiting;
        let mut now = 0;
        let (next, action) = step(state, Event::Ready, now);
        assert_eq!(action, Action::Start);
        state = next;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            (state, _) = step(state, Event::Started, now);
            (state, _) = step(state, ENDED, now);
            let State::Pausing { until_ms, .. } = state else { panic!("{state:?}") };
            pauses.push(until_ms - now);
            assert_eq!(step(state, Event::Tick, until_ms - 1), (state, Action::None));
            now = until_ms;
            let (next, action) = step(state, Event::Tick, now);
            assert_eq!(action, Action::Start);
            state = next;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    }

    #[test]
    fn a_busy_runtime_is_no_failure_of_the_service() {
        let (state, _) = step(State::Starting { failures: 3 }, Event::Delayed, 10);
        assert_eq!(state, State::Pausing { until_ms: 10 + DELAY_MS, failures: 3 });
        assert_eq!(step(state, Event::Tick, 10 + DELAY_MS).1, Action::Start);
    }

    #[test]
    fn what_nobody_watches_any_more_is_looked_up_again() {
        let up = State::Running { since_ms: 0, failures: 1, well: true };
        let (state, _) = step(up, Event::Delayed, 10);
        assert_eq!(state, State::Pausing { until_ms: 10 + DELAY_MS, failures: 1 });
    }

    #[test]
    fn a_long_run_forgives() {
        let state = State::Running { since_ms: 0, failures: 7, well: true };
        assert_eq!(
            step(state, ENDED, SETTLED_MS),
            (State::Pausing { until_ms: SETTLED_MS + 500, failures: 1 }, Action::None)
        );
    }

    #[test]
    fn what_is_to_end_is_not_started_again() {
        let up = State::Running { since_ms: 0, failures: 0, well: true };
        let end = |policy: Policy, well| up.step(policy, Event::Ended { well }, 9).0;
        let daemon = |restart| Policy { restart, ..Policy::DAEMON };
        assert_eq!((end(ONESHOT, true), end(ONESHOT, false)), (State::Done, State::Failed));
        assert_eq!(end(daemon(Restart::Never), true), State::Done);
        assert_eq!(end(daemon(Restart::Never), false), State::Failed);
        assert_eq!(end(daemon(Restart::OnFailure), true), State::Done);
        let pausing = State::Pausing { until_ms: 509, failures: 1 };
        assert_eq!(end(daemon(Restart::OnFailure), false), pausing);
        let patient = Policy { restart: Restart::OnFailure, ..ONESHOT };
        assert_eq!((end(patient, true), end(patient, false)), (State::Done, pausing));
        // What cannot even be started has not ended well.
        let starting = State::Starting { failures: 0 };
        assert_eq!(starting.step(ONESHOT, Event::Ended { well: true }, 9).0, State::Failed);
    }

    #[test]
    fn a_restart_is_a_stop_and_a_start() {
        let (stopping, action) =
            step(State::Running { since_ms: 0, failures: 4, well: true }, Event::Stop, 5);
        assert_eq!((stopping, action), (State::Stopping { again: false }, Action::Stop));
        let again = step(stopping, Event::Start, 5).0;
        assert_eq!(again, State::Stopping { again: true });
        assert_eq!(step(again, ENDED, 6), (State::Starting { failures: 0 }, Action::Start));
        assert_eq!(step(again, Event::Stop, 6), (stopping, Action::Stop));
        // The stop came while it was being started.
        let (stopping, _) = step(State::Starting { failures: 0 }, Event::Stop, 5);
        assert_eq!(step(stopping, Event::Started, 6), (stopping, Action::Stop));
        assert_eq!(step(stopping, ENDED, 7), (State::Stopped, Action::None));
        // An impatient person does not wait for the pause.
        let pausing = State::Pausing { until_ms: 30_000, failures: 7 };
        assert_eq!(
            step(pausing, Event::Start, 1),
            (State::Starting { failures: 7 }, Action::Start)
        );
    }

    #[test]
    fn what_is_over_waits_for_a_person() {
        for over in [State::Stopped, State::Done, State::Failed] {
            for event in EVENTS {
                let (next, action) = step(over, event, 9);
                assert_eq!(action, Action::None);
                let moved = matches!(event, Event::Start | Event::Stop);
                assert!(moved || next == over, "{over:?} {event:?} {next:?}");
            }
            assert_eq!(step(over, Event::Start, 9).0, State::Waiting);
        }
    }

    #[test]
    fn who_is_asked_has_to_say_so_first() {
        let asked = Policy { asked: true, ..Policy::DAEMON };
        let (young, _) = State::Starting { failures: 2 }.step(asked, Event::Started, 7);
        assert_eq!(young, State::Running { since_ms: 7, failures: 2, well: false });
        assert!(!young.is_fulfilled() && !young.is_past());
        let (well, action) = young.step(asked, Event::Well, 9);
        assert_eq!(action, Action::None);
        assert_eq!(well, State::Running { since_ms: 7, failures: 2, well: true });
        assert!(well.is_fulfilled());
        let stopping = State::Stopping { again: false };
        assert_eq!(stopping.step(asked, Event::Well, 9).0, stopping);
    }

    #[test]
    fn who_waits_for_whom() {
        let up = State::Running { since_ms: 0, failures: 0, well: true };
        let pausing = |failures| State::Pausing { until_ms: 0, failures };
        for (state, past, fulfilled) in [
            (State::Waiting, false, false),
            (pausing(0), false, false),
            (pausing(1), true, false),
            (up, true, true),
            (State::Done, true, true),
            (State::Failed, true, false),
            (State::Stopped, true, false),
        ] {
            assert_eq!((state.is_past(), state.is_fulfilled()), (past, fulfilled), "{state:?}");
        }
    }

    #[test]
    fn late_news_of_an_old_start_changes_nothing() {
        let pausing = State::Pausing { until_ms: 100, failures: 1 };
        assert_eq!(step(pausing, ENDED, 5), (pausing, Action::None));
        assert_eq!(step(pausing, Event::Started, 5), (pausing, Action::None));
    }

    #[test]
    fn a_scheduled_service_runs_when_its_time_comes() {
        let policy = Policy { oneshot: true, restart: Restart::Never, asked: false };
        let step = |state: State, event| state.step(policy, event, 0);
        let (rested, _) = step(State::Stopped, Event::Schedule);
        assert_eq!(rested, State::Resting);
        assert_eq!(step(State::Resting, Event::Ready), (State::Resting, Action::None), "not yet");
        assert_eq!(step(State::Resting, Event::Due), (State::Waiting, Action::None));
        assert_eq!(step(State::Done, Event::Due), (State::Waiting, Action::None));
        assert_eq!(step(State::Failed, Event::Due), (State::Waiting, Action::None));
        assert_eq!(step(State::Stopped, Event::Due), (State::Stopped, Action::None));
        let run = State::Running { since_ms: 0, failures: 0, well: true };
        assert_eq!(step(run, Event::Due), (run, Action::None), "never twice at a time");
        assert_eq!(step(State::Resting, Event::Stop), (State::Stopped, Action::None));
    }
}
