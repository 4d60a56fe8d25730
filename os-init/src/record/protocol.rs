//! The lines between the record helper and those who ask it.
//!
//! | request | meaning |
//! |---|---|
//! | `get` | the newest record |
//! | `started NONCE N`, `gate-open`, `confirm`, `gate-failed slot`, `gate-failed state`, `verity-error`, `overdue`, `clean-stop`, `disarm`, `seal RELEASE SECVER DIGEST`, `scrubbed`, `arm`, `rollback`, `force DIGEST`, `ask-reboot`, `raise-floor N` | perform the event of [`partition_layout::boot_state::Event`] |
//!
//! | answer | meaning |
//! |---|---|
//! | `ok ACTION RECORD` | `none`, `reboot` or `degraded`, and the durable record in hexadecimal |
//! | `refused WHY` | a rule forbids it; nothing was written |
//! | `failed WHY` | the disk failed; the newest record before is still there |

use partition_layout::boot_state::{Action, Blame, Event, ImageFacts};
use partition_layout::record::{RECORD_SIZE, Record};
use partition_layout::verity::{hex, unhex};

/// The longest line in either direction, in bytes.
pub const LINE_MAX: usize = 2048;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The newest record.
    Get,
    /// Perform an event.
    Apply(Event),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Durable; what to do now, and the record.
    Ok(Action, Box<Record>),
    /// A rule forbids it.
    Refused(String),
    /// The disk failed.
    Failed(String),
}

impl Request {
    /// The line, with its end.
    #[must_use]
    pub fn encode(&self) -> String {
        let event = match self {
            Self::Get => return "get\n".into(),
            Self::Apply(event) => event,
        };
        match event {
            Event::Started { nonce, watchdog } => format!("started {} {watchdog}\n", hex(nonce)),
            Event::GateOpen => "gate-open\n".into(),
            Event::Confirm => "confirm\n".into(),
            Event::GateFailed { blame: Blame::Slot } => "gate-failed slot\n".into(),
            Event::GateFailed { blame: Blame::State } => "gate-failed state\n".into(),
            Event::VerityError => "verity-error\n".into(),
            Event::Overdue => "overdue\n".into(),
            Event::CleanStop => "clean-stop\n".into(),
            Event::Disarm => "disarm\n".into(),
            Event::Seal(ImageFacts { release, secver, digest }) => {
                format!("seal {release} {secver} {}\n", hex(digest))
            }
            Event::Scrubbed => "scrubbed\n".into(),
            Event::Arm => "arm\n".into(),
            Event::Rollback => "rollback\n".into(),
            Event::Force { digest } => format!("force {}\n", hex(digest)),
            Event::AskReboot => "ask-reboot\n".into(),
            Event::RaiseFloor { secver } => format!("raise-floor {secver}\n"),
        }
    }

    /// Reads a line.
    #[must_use]
    pub fn decode(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
        let event = match words.as_slice() {
            ["get"] => return Some(Self::Get),
            ["started", nonce, watchdog] => {
                Event::Started { nonce: unhex(nonce)?, watchdog: watchdog.parse().ok()? }
            }
            ["gate-open"] => Event::GateOpen,
            ["confirm"] => Event::Confirm,
            ["gate-failed", "slot"] => Event::GateFailed { blame: Blame::Slot },
            ["gate-failed", "state"] => Event::GateFailed { blame: Blame::State },
            ["verity-error"] => Event::VerityError,
            ["overdue"] => Event::Overdue,
            ["clean-stop"] => Event::CleanStop,
            ["disarm"] => Event::Disarm,
            ["seal", release, secver, digest] => Event::Seal(ImageFacts {
                release: release.parse().ok()?,
                secver: secver.parse().ok()?,
                digest: unhex(digest)?,
            }),
            ["scrubbed"] => Event::Scrubbed,
            ["arm"] => Event::Arm,
            ["rollback"] => Event::Rollback,
            ["force", digest] => Event::Force { digest: unhex(digest)? },
            ["ask-reboot"] => Event::AskReboot,
            ["raise-floor", secver] => Event::RaiseFloor { secver: secver.parse().ok()? },
            _ => return None,
        };
        Some(Self::Apply(event))
    }
}

impl Answer {
    /// The line, with its end.
    #[must_use]
    pub fn encode(&self) -> String {
        let plain = |why: &str| why.replace(['\n', '\r'], " ");
        match self {
            Self::Ok(action, record) => {
                let word = match action {
                    Action::None => "none",
                    Action::Reboot => "reboot",
                    Action::StayDegraded => "degraded",
                };
                format!("ok {word} {}\n", hex(&record.encode()))
            }
            Self::Refused(why) => format!("refused {}\n", plain(why)),
            Self::Failed(why) => format!("failed {}\n", plain(why)),
        }
    }

    /// Reads a line.
    #[must_use]
    pub fn decode(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end_matches('\n').split_once(' ')?;
        match word {
            "ok" => {
                let (action, record) = rest.split_once(' ')?;
                let action = match action {
                    "none" => Action::None,
                    "reboot" => Action::Reboot,
                    "degraded" => Action::StayDegraded,
                    _ => return None,
                };
                let bytes: [u8; RECORD_SIZE] = unhex(record)?;
                Some(Self::Ok(action, Box::new(Record::decode(&bytes).ok()?)))
            }
            "refused" => Some(Self::Refused(rest.into())),
            "failed" => Some(Self::Failed(rest.into())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partition_layout::boot_state;

    #[test]
    fn every_request_comes_back() {
        let facts = ImageFacts { release: 7, secver: 2, digest: [0xab; 32] };
        for event in [
            Event::Started { nonce: [7; 16], watchdog: 32 },
            Event::GateOpen,
            Event::Confirm,
            Event::GateFailed { blame: Blame::Slot },
            Event::GateFailed { blame: Blame::State },
            Event::VerityError,
            Event::Overdue,
            Event::Scrubbed,
            Event::CleanStop,
            Event::Disarm,
            Event::Seal(facts),
            Event::Arm,
            Event::Rollback,
            Event::Force { digest: [1; 32] },
            Event::AskReboot,
            Event::RaiseFloor { secver: 3 },
        ] {
            let request = Request::Apply(event);
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        assert_eq!(Request::decode("get\n"), Some(Request::Get));
        for bad in ["", "confirm now", "seal 1 2 zz", "started -1", "GET"] {
            assert_eq!(Request::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_answer_comes_back() {
        let facts = ImageFacts { release: 7, secver: 2, digest: [0; 32] };
        let stored = Record::decode(&boot_state::factory([1; 16], facts).encode()).unwrap();
        for answer in [
            Answer::Ok(Action::Reboot, Box::new(stored)),
            Answer::Refused("because".into()),
            Answer::Failed("disk".into()),
        ] {
            let line = answer.encode();
            assert!(line.len() < LINE_MAX);
            assert_eq!(Answer::decode(&line), Some(answer));
        }
    }
}
