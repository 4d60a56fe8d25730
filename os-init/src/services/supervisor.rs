//! When a service is started, restarted and waited for: one enum of states, one match.
//!
//! Pure: `now_ms` is monotonic and an argument; the caller performs the returned [`Action`].

/// The first pause before a restart, in milliseconds; it doubles with each failure in a row.
pub const BACKOFF_FIRST_MS: u64 = 500;
/// The longest pause before a restart: long enough not to burn a core, short enough that a
/// service whose cause has gone is back within half a minute.
pub const BACKOFF_MAX_MS: u64 = 30_000;
/// The pause after a start that the runtime could not perform, in milliseconds.
pub const DELAY_MS: u64 = 2_000;
/// A service that ran this long is healthy again: its next pause is the first one.
pub const SETTLED_MS: u64 = 60_000;

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
    },
    /// It ended and will be started again.
    Pausing {
        /// Monotonic milliseconds of the next start.
        until_ms: u64,
        /// Failures in a row.
        failures: u32,
    },
    /// Being stopped, or stopped, on request.
    Stopped,
}

/// What happened to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Everything it starts after is running.
    Ready,
    /// Its process is up.
    Started,
    /// Its process ended, or could not be started.
    Ended,
    /// It could not be started now for no fault of its own: the runtime is busy or away.
    Delayed,
    /// Time went by.
    Tick,
    /// It shall stop and stay stopped.
    Stop,
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
    pub fn step(self, event: Event, now_ms: u64) -> (Self, Action) {
        match (self, event) {
            (Self::Stopped, _) => (self, Action::None),
            (_, Event::Stop) => (Self::Stopped, Action::Stop),
            (Self::Waiting, Event::Ready) => (Self::Starting { failures: 0 }, Action::Start),
            (Self::Starting { failures }, Event::Started) => {
                (Self::Running { since_ms: now_ms, failures }, Action::None)
            }
            (Self::Starting { failures }, Event::Ended) => {
                (pause(failures + 1, now_ms), Action::None)
            }
            (Self::Starting { failures }, Event::Delayed) => {
                let until_ms = now_ms.saturating_add(DELAY_MS);
                (Self::Pausing { until_ms, failures }, Action::None)
            }
            (Self::Running { since_ms, failures }, Event::Ended) => {
                let settled = now_ms.saturating_sub(since_ms) >= SETTLED_MS;
                let failures = if settled { 1 } else { failures.saturating_add(1) };
                (pause(failures, now_ms), Action::None)
            }
            (Self::Pausing { until_ms, failures }, Event::Tick) if now_ms >= until_ms => {
                (Self::Starting { failures }, Action::Start)
            }
            (Self::Waiting, Event::Started | Event::Ended | Event::Delayed | Event::Tick)
            | (Self::Starting { .. } | Self::Running { .. } | Self::Pausing { .. }, _) => {
                (self, Action::None)
            }
        }
    }

    /// Failures in a row so far.
    pub fn failures(self) -> u32 {
        match self {
            Self::Starting { failures }
            | Self::Running { failures, .. }
            | Self::Pausing { failures, .. } => failures,
            Self::Waiting | Self::Stopped => 0,
        }
    }

    /// The word for people and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Pausing { .. } => "restarting",
            Self::Stopped => "stopped",
        }
    }
}

fn pause(failures: u32, now_ms: u64) -> State {
    State::Pausing { until_ms: now_ms.saturating_add(backoff_ms(failures)), failures }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_dies_is_started_again_with_growing_pauses() {
        let mut state = State::Waiting;
        let mut now = 0;
        let (next, action) = state.step(Event::Ready, now);
        assert_eq!(action, Action::Start);
        state = next;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            (state, _) = state.step(Event::Started, now);
            (state, _) = state.step(Event::Ended, now);
            let State::Pausing { until_ms, .. } = state else { panic!("{state:?}") };
            pauses.push(until_ms - now);
            assert_eq!(state.step(Event::Tick, until_ms - 1), (state, Action::None));
            now = until_ms;
            let (next, action) = state.step(Event::Tick, now);
            assert_eq!(action, Action::Start);
            state = next;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    }

    #[test]
    fn a_busy_runtime_is_no_failure_of_the_service() {
        let (state, _) = State::Starting { failures: 3 }.step(Event::Delayed, 10);
        assert_eq!(state, State::Pausing { until_ms: 10 + DELAY_MS, failures: 3 });
        assert_eq!(state.step(Event::Tick, 10 + DELAY_MS).1, Action::Start);
    }

    #[test]
    fn a_long_run_forgives() {
        let state = State::Running { since_ms: 0, failures: 7 };
        assert_eq!(
            state.step(Event::Ended, SETTLED_MS),
            (State::Pausing { until_ms: SETTLED_MS + 500, failures: 1 }, Action::None)
        );
    }

    #[test]
    fn stopped_stays_stopped() {
        for state in [State::Waiting, State::Running { since_ms: 0, failures: 0 }] {
            let (stopped, action) = state.step(Event::Stop, 5);
            assert_eq!((stopped, action), (State::Stopped, Action::Stop));
            for event in [
                Event::Ready,
                Event::Started,
                Event::Ended,
                Event::Delayed,
                Event::Tick,
                Event::Stop,
            ] {
                assert_eq!(stopped.step(event, 9), (State::Stopped, Action::None));
            }
        }
    }

    #[test]
    fn late_news_of_an_old_start_changes_nothing() {
        let pausing = State::Pausing { until_ms: 100, failures: 1 };
        assert_eq!(pausing.step(Event::Ended, 5), (pausing, Action::None));
        assert_eq!(pausing.step(Event::Started, 5), (pausing, Action::None));
    }
}
