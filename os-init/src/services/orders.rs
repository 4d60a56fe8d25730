//! What people ask of the manager: an order is carried out by its loop and answered when its effect
//! is there, or cannot come.

use super::definitions::Definitions;
use super::supervisor::{Event, State};
use super::wire::Changed;
use tokio::sync::oneshot;
use tonic::Status;

/// What shall become of a service that is running or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start it.
    Start,
    /// Start it; where it runs by another file than the newest, stop it first.
    Renew,
    /// Renew, by an image that is on trial.
    Try,
    /// The trial is over: what the files say counts again, or where they cannot be read, what was
    /// kept, or else ran before.
    Settle {
        /// Whether it was kept.
        kept: bool,
    },
    /// Stop it and start it.
    Restart,
    /// Stop it.
    Stop,
    /// Stop it; its file is gone.
    Forget,
}

impl Verb {
    /// What is waited for before the order is answered.
    #[must_use]
    pub fn aim(self) -> Aim {
        match self {
            Self::Start | Self::Renew | Self::Try | Self::Settle { .. } | Self::Restart => Aim::Up,
            Self::Stop | Self::Forget => Aim::Down,
        }
    }
}

/// What an order waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// It runs, or has done what it is for.
    Up,
    /// It does not run.
    Down,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not there yet.
    Under,
    /// There.
    Reached,
    /// It will not come, or not soon.
    Missed,
}

/// An order, and where its answer goes.
#[derive(Debug)]
pub struct Order {
    /// Whom it concerns.
    pub name: String,
    /// What shall be done.
    pub verb: Verb,
    /// All service files as they are now; none where they cannot be read.
    pub definitions: Option<Definitions>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Changed, Status>>,
}

/// How far an order has come whose service stands so. A `oneshot` has come up when it is done;
/// `blocked`: what it waits for will not come by itself.
#[must_use]
pub fn progress(aim: Aim, state: State, oneshot: bool, blocked: bool) -> Progress {
    match (aim, state) {
        (Aim::Up, State::Running { .. }) if oneshot => Progress::Under,
        (Aim::Up, State::Running { well: true, .. } | State::Done)
        | (Aim::Up, State::Resting)
        | (Aim::Down, State::Stopped | State::Resting | State::Done | State::Failed) => {
            Progress::Reached
        }
        (Aim::Up, State::Pausing { .. } | State::Stopped | State::Failed) => Progress::Missed,
        // Somebody else has had it started meanwhile.
        (
            Aim::Down,
            State::Stopping { again: true }
            | State::Waiting
            | State::Starting { .. }
            | State::Running { .. }
            | State::Pausing { .. },
        ) => Progress::Missed,
        (Aim::Up, State::Waiting) if blocked => Progress::Missed,
        (Aim::Up | Aim::Down, _) => Progress::Under,
    }
}

/// What an order finds of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stands {
    /// A person has stopped or removed it.
    pub unwanted: bool,
    /// What it requires is not there.
    pub missing: bool,
    /// It was started last by another file than the newest.
    pub newer: bool,
    /// It is started by the clock.
    pub scheduled: bool,
    /// It was started last as a daemon.
    pub was_daemon: bool,
}

/// What an order comes to, and what is waited for before it is answered.
#[must_use]
pub fn events(verb: Verb, stands: &Stands) -> (&'static [Event], Aim) {
    const AGAIN: &[Event] = &[Event::Stop, Event::Start];
    let Stands { unwanted, missing, newer, scheduled, was_daemon } = *stands;
    let events: &[Event] = match verb {
        // Who has stopped it during the trial wanted it so; and what is not there cannot run.
        Verb::Settle { .. } if unwanted => return (&[], Aim::Down),
        Verb::Settle { .. } if missing => return (&[Event::Stop], Aim::Down),
        Verb::Settle { .. } if !newer => &[],
        Verb::Settle { .. } if scheduled => &[Event::Stop, Event::Schedule],
        // It is started when its time comes; what runs on as a daemon has to end first.
        Verb::Renew if scheduled && was_daemon => &[Event::Stop],
        Verb::Renew if scheduled => &[Event::Schedule],
        Verb::Renew | Verb::Try if !newer => &[Event::Start],
        Verb::Renew | Verb::Try | Verb::Settle { .. } | Verb::Restart => AGAIN,
        Verb::Start => &[Event::Start],
        Verb::Stop | Verb::Forget => &[Event::Stop],
    };
    (events, verb.aim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_trial_starts_nothing_that_nobody_wants() {
        let put_back = Verb::Settle { kept: false };
        let newer = Stands { newer: true, ..Stands::default() };
        assert_eq!(events(put_back, &newer), (&[Event::Stop, Event::Start][..], Aim::Up));
        let unwanted = Stands { unwanted: true, ..newer };
        assert_eq!(
            events(put_back, &unwanted),
            (&[][..], Aim::Down),
            "stopped or removed meanwhile"
        );
        let missing = Stands { missing: true, ..newer };
        assert_eq!(events(put_back, &missing), (&[Event::Stop][..], Aim::Down));
        let kept = events(Verb::Settle { kept: true }, &Stands::default());
        assert_eq!(kept, (&[][..], Aim::Up), "it runs on");
        let scheduled = Stands { scheduled: true, ..newer };
        assert_eq!(events(put_back, &scheduled).0, [Event::Stop, Event::Schedule]);
    }

    #[test]
    fn a_scheduled_service_is_enabled_and_not_started() {
        let scheduled = Stands { scheduled: true, newer: true, ..Stands::default() };
        assert_eq!(events(Verb::Renew, &scheduled), (&[Event::Schedule][..], Aim::Up));
        let daemon = Stands { was_daemon: true, ..scheduled };
        assert_eq!(events(Verb::Renew, &daemon).0, [Event::Stop], "the daemon that it was ends");
        assert_eq!(events(Verb::Start, &scheduled).0, [Event::Start]);
        // What runs by the newest file runs on.
        assert_eq!(events(Verb::Renew, &Stands::default()).0, [Event::Start]);
        assert_eq!(events(Verb::Restart, &Stands::default()).0, [Event::Stop, Event::Start]);
    }

    #[test]
    fn an_order_is_answered_when_its_effect_is_there_or_cannot_come() {
        let up = State::Running { since_ms: 0, failures: 0, well: true };
        let pausing = State::Pausing { until_ms: 0, failures: 1 };
        let starting = State::Starting { failures: 0 };
        let stopping = |again| State::Stopping { again };
        for (state, to_up, to_down) in [
            (State::Waiting, Progress::Under, Progress::Missed),
            (starting, Progress::Under, Progress::Missed),
            (up, Progress::Reached, Progress::Missed),
            (pausing, Progress::Missed, Progress::Missed),
            (stopping(true), Progress::Under, Progress::Missed),
            (stopping(false), Progress::Under, Progress::Under),
            (State::Stopped, Progress::Missed, Progress::Reached),
            (State::Resting, Progress::Reached, Progress::Reached),
            (State::Done, Progress::Reached, Progress::Reached),
            (State::Failed, Progress::Missed, Progress::Reached),
        ] {
            assert_eq!(progress(Aim::Up, state, false, false), to_up, "{state:?}");
            assert_eq!(progress(Aim::Down, state, false, false), to_down, "{state:?}");
        }
        assert_eq!(progress(Aim::Up, State::Waiting, false, true), Progress::Missed);
        assert_eq!(progress(Aim::Up, up, true, false), Progress::Under);
        let young = State::Running { since_ms: 0, failures: 0, well: false };
        assert_eq!(progress(Aim::Up, young, false, false), Progress::Under);
        assert_eq!(progress(Aim::Up, State::Done, true, false), Progress::Reached);
    }
}
