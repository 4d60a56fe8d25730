//! What the health gate looks at, gathered from the services; and how it is told.

use super::probes::Probed;
use super::supervised::Supervised;
use super::supervisor::State;
use crate::gate::{Facts, Probe, STEADY_MS, ServiceFact, Verdict};
use std::collections::BTreeMap;

/// So many characters of a reason are told.
const REASON_MAX: usize = 500;
/// The word for a gate that has passed.
pub const PASSED: &str = "passed";

/// The facts at `now_ms`.
#[must_use]
pub fn gather(services: &BTreeMap<String, Supervised>, probed: &Probed, now_ms: u64) -> Facts {
    let counted = services.iter().filter(|(_, service)| {
        service.definition.is_gated() && service.definition.missing.is_none()
    });
    let services_facts = counted
        .map(|(name, service)| ServiceFact {
            name: name.clone(),
            up_ms: match service.state {
                State::Running { since_ms, well: true, .. } => {
                    Some(now_ms.saturating_sub(since_ms))
                }
                // A oneshot has proven itself.
                State::Done | State::Resting => Some(STEADY_MS),
                _ => None,
            },
            failures: service.state.failures(),
            reason: service.reason.clone(),
        })
        .collect();
    let updater = match services.contains_key("updater") {
        true => probed.updater.clone(),
        false => Probe::Bad("has no service file".into()),
    };
    Facts {
        services: services_facts,
        ssh: probed.ssh.clone(),
        record: probed.record.clone(),
        updater,
    }
}

/// The line that tells PID 1 how the gate stands.
#[must_use]
pub fn line(verdict: &Verdict) -> String {
    // PID 1 takes no long lines, and what containerd says can be long.
    let short = |reason: &str| reason.chars().take(REASON_MAX).collect::<String>();
    let line = match verdict {
        Verdict::Passed => serde_json::json!({ "do": "gate", "verdict": "passed" }),
        Verdict::Pending(reason) => {
            serde_json::json!({ "do": "gate", "verdict": "pending", "reason": short(reason) })
        }
        Verdict::Failed(reason) => {
            serde_json::json!({ "do": "gate", "verdict": "failed", "reason": short(reason) })
        }
    };
    format!("{line}\n")
}

/// The verdict for people.
#[must_use]
pub fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => PASSED.into(),
        Verdict::Pending(reason) => reason.clone(),
        Verdict::Failed(reason) => format!("failed: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{REQUEST_MAX, parse};

    #[test]
    fn pid_1_takes_the_line_however_long_the_reason_is() {
        for reason in ["x".repeat(10_000), "\u{1}\"ü".repeat(10_000)] {
            let line = line(&Verdict::Pending(reason));
            assert!(line.len() < REQUEST_MAX, "{}", line.len());
            assert!(parse(&line).is_ok());
        }
    }
}
