//! The health gate's phases in PID 1: one enum, one match. Pure; time is an argument.

use crate::control::Told;
use crate::gate::DEADLINE_MS;
use partition_layout::boot_state;
use partition_layout::record::Record;
use partition_layout::verity::unhex;

/// Where the gate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Open since this time, in monotonic milliseconds; what is missing.
    Open {
        /// When it opened.
        since_ms: u64,
        /// What was missing when it was last told.
        missing: String,
    },
    /// The record helper is asked to make the decision durable.
    Deciding,
    /// Decided.
    Decided,
}

/// What to do.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Confirm the boot.
    Confirm,
    /// The gate failed, for this reason.
    Fail(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `os-services` told a verdict.
    Told(Told, String),
    /// Time went by.
    Tick,
}

/// Whether a confirmation was answered with "reboot" by a record that knows nothing of this boot,
/// `boot_id` being its nonce in hex. Nothing of this boot could be written then, and the next one
/// would hear the same: rebooting would not end.
#[must_use]
pub fn is_stale(answer: boot_state::Action, record: &Record, boot_id: &str) -> bool {
    answer == boot_state::Action::Reboot && unhex(boot_id) != Some(record.nonce)
}

impl Gate {
    /// The next phase and what to do.
    pub fn step(self, event: Event, now_ms: u64) -> (Self, Action) {
        match (self, event) {
            (Self::Open { .. }, Event::Told(Told::Passed, _)) => (Self::Deciding, Action::Confirm),
            (Self::Open { .. }, Event::Told(Told::Failed, reason)) => {
                (Self::Deciding, Action::Fail(reason))
            }
            (Self::Open { since_ms, .. }, Event::Told(Told::Pending, missing)) => {
                (Self::Open { since_ms, missing }, Action::None)
            }
            (Self::Open { since_ms, missing }, Event::Tick)
                if now_ms.saturating_sub(since_ms) >= DEADLINE_MS =>
            {
                let reason = format!("not healthy within {} s: {missing}", DEADLINE_MS / 1000);
                (Self::Deciding, Action::Fail(reason))
            }
            (gate, _) => (gate, Action::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Gate {
        Gate::Open { since_ms: 1000, missing: "nothing told yet".into() }
    }

    #[test]
    fn the_first_definite_word_decides() {
        let passed = Event::Told(Told::Passed, String::new());
        assert_eq!(open().step(passed.clone(), 1), (Gate::Deciding, Action::Confirm));
        let failed = Event::Told(Told::Failed, "x".into());
        assert_eq!(open().step(failed, 1), (Gate::Deciding, Action::Fail("x".into())));
        assert_eq!(Gate::Decided.step(passed, 1), (Gate::Decided, Action::None));
    }

    #[test]
    fn silence_fails_at_the_deadline_and_names_what_was_missing() {
        let (gate, _) = open().step(Event::Told(Told::Pending, "sshd".into()), 2000);
        assert_eq!(gate.clone().step(Event::Tick, 1000 + DEADLINE_MS - 1).1, Action::None);
        let (_, action) = gate.step(Event::Tick, 1000 + DEADLINE_MS);
        assert_eq!(action, Action::Fail("not healthy within 300 s: sshd".into()));
    }

    /// A disk that turned read-only after an orderly stop before the gate: each boot would be told
    /// that it is being left.
    #[test]
    fn a_record_of_an_earlier_boot_reboots_nothing() {
        let mut record = Record::fresh([1; 16]);
        record.nonce = [0xab; 16];
        let this = "ab".repeat(16);
        assert!(!is_stale(boot_state::Action::Reboot, &record, &this));
        assert!(is_stale(boot_state::Action::Reboot, &record, &"cd".repeat(16)));
        assert!(is_stale(boot_state::Action::Reboot, &record, "not hex"));
        assert!(!is_stale(boot_state::Action::None, &record, &"cd".repeat(16)));
    }
}
