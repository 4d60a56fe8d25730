//! The health gate: is this boot good enough to be kept?
//!
//! Pure; compiled in, so that a configuration can never weaken it. `os-services` gathers the facts
//! and tells PID 1 the verdict; PID 1 alone owns the deadline and confirms or gives up.
//! Network, registry and time are not among the facts: a cable that is out must not undo an
//! update that works.

use std::fmt::Write as _;

/// How long every gated service must have run without a restart, in milliseconds.
pub const STEADY_MS: u64 = 30_000;
/// How long PID 1 waits for the verdict after state is ready, in milliseconds.
pub const DEADLINE_MS: u64 = 5 * 60_000;

/// So many ends in a row are a definite failure: waiting longer would not help.
pub const FAILURES_MAX: u32 = 5;

/// What is known about one service that the gate waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFact {
    /// The service's name.
    pub name: String,
    /// How long it has been running, in milliseconds; `None` when it is not.
    pub up_ms: Option<u64>,
    /// How often in a row it ended too soon.
    pub failures: u32,
    /// Why it ended the last time.
    pub reason: Option<String>,
}

/// The answer of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Not asked yet, or not answered yet.
    Pending,
    /// Answered as it should.
    Good,
    /// Answered wrongly, or not at all: why.
    Bad(String),
}

/// Everything the gate looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The services that count.
    pub services: Vec<ServiceFact>,
    /// sshd sends its banner.
    pub ssh: Probe,
    /// The record helper answers.
    pub record: Probe,
    /// The updater could make the next update.
    pub updater: Probe,
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything holds.
    Passed,
    /// Not yet: what is missing. It may still come, until PID 1's deadline.
    Pending(String),
    /// It will not come: why.
    Failed(String),
}

/// Judges the facts.
pub fn judge(facts: &Facts) -> Verdict {
    if let Some(lost) = facts.services.iter().find(|service| service.failures >= FAILURES_MAX) {
        let reason = lost.reason.as_deref().unwrap_or("ended");
        return Verdict::Failed(format!(
            "{}: {reason}, {} times in a row",
            lost.name, lost.failures
        ));
    }
    let mut missing = String::new();
    let mut add = |what: &str, why: &str| {
        let separator = if missing.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(missing, "{separator}{what} {why}");
    };
    if facts.services.is_empty() {
        add("services", "are none");
    }
    for service in &facts.services {
        match service.up_ms {
            None => add(&service.name, "is not running"),
            Some(up) if up < STEADY_MS => {
                add(&service.name, &format!("up {} of {} s", up / 1000, STEADY_MS / 1000));
            }
            Some(_) => {}
        }
    }
    for (what, probe) in
        [("sshd", &facts.ssh), ("boot record", &facts.record), ("updater", &facts.updater)]
    {
        match probe {
            Probe::Good => {}
            Probe::Pending => add(what, "not probed yet"),
            Probe::Bad(why) => add(what, why),
        }
    }
    if missing.is_empty() { Verdict::Passed } else { Verdict::Pending(missing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        let service = |name: &str| ServiceFact {
            name: name.into(),
            up_ms: Some(STEADY_MS),
            failures: 0,
            reason: None,
        };
        Facts {
            services: vec![service("network"), service("console")],
            ssh: Probe::Good,
            record: Probe::Good,
            updater: Probe::Good,
        }
    }

    #[test]
    fn passes_only_when_everything_holds() {
        assert_eq!(judge(&good()), Verdict::Passed);
    }

    #[test]
    fn a_service_that_keeps_ending_is_a_definite_failure() {
        let mut facts = good();
        facts.services[0].failures = FAILURES_MAX - 1;
        assert_eq!(judge(&facts), Verdict::Passed);
        facts.services[0].failures = FAILURES_MAX;
        facts.services[0].reason = Some("ended with status 1".into());
        let why = "network: ended with status 1, 5 times in a row";
        assert_eq!(judge(&facts), Verdict::Failed(why.into()));
    }

    #[test]
    fn each_missing_thing_is_named() {
        let mut down = good();
        down.services[1].up_ms = None;
        assert_eq!(judge(&down), Verdict::Pending("console is not running".into()));

        let mut young = good();
        young.services[0].up_ms = Some(STEADY_MS - 1);
        assert_eq!(judge(&young), Verdict::Pending("network up 29 of 30 s".into()));

        let mut none = good();
        none.services.clear();
        assert_eq!(judge(&none), Verdict::Pending("services are none".into()));

        for break_it in [
            |f: &mut Facts| f.ssh = Probe::Bad("sends no banner".into()),
            |f: &mut Facts| f.record = Probe::Pending,
            |f: &mut Facts| f.updater = Probe::Bad("self-test ended with 111".into()),
        ] {
            let mut facts = good();
            break_it(&mut facts);
            assert!(matches!(judge(&facts), Verdict::Pending(_)), "{facts:?}");
        }
    }
}
