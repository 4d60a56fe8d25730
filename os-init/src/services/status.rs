//! What the services manager tells: its socket for anyone on the machine who is root, and the
//! health gate's verdict for PID 1.
//!
//! `/run/bascule/services.sock`: one JSON line `{"do":"status"}` is answered by one JSON line,
//! `{"services":[…],"gate":"…"}`. Unknown requests are answered by `{"error":"…"}`.

use super::supervisor::State;
use crate::gate::{Facts, Verdict};
use serde::{Deserialize, Serialize};

/// The manager's socket.
pub const SOCKET: &str = "/run/bascule/services.sock";
/// The longest request that is read, in bytes.
pub const REQUEST_MAX: usize = 4096;

/// One service in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The service's name.
    pub name: String,
    /// `waiting`, `starting`, `running`, `restarting` or `stopped`.
    pub state: String,
    /// Seconds since it came up, while it is running.
    pub up_s: Option<u64>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it is not running, or last stopped running.
    pub reason: Option<String>,
}

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Every service.
    pub services: Vec<ServiceStatus>,
    /// `passed`, or what is still missing.
    pub gate: String,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How do the services stand?
    Status,
}

impl ServiceStatus {
    /// What is known of one service at `now_ms`.
    pub fn new(name: &str, state: State, restarts: u32, reason: Option<&str>, now_ms: u64) -> Self {
        let up_s = match state {
            State::Running { since_ms, .. } => Some(now_ms.saturating_sub(since_ms) / 1000),
            _ => None,
        };
        let reason = reason.map(str::to_string);
        Self { name: name.into(), state: state.word().into(), up_s, restarts, reason }
    }
}

/// The line that tells PID 1 how the gate stands.
pub fn gate_line(facts: &Facts) -> (Verdict, String) {
    let verdict = crate::gate::judge(facts);
    let line = match &verdict {
        Verdict::Passed => serde_json::json!({ "do": "gate", "verdict": "passed" }),
        Verdict::Pending(reason) => {
            serde_json::json!({ "do": "gate", "verdict": "pending", "reason": reason })
        }
        Verdict::Failed(reason) => {
            serde_json::json!({ "do": "gate", "verdict": "failed", "reason": reason })
        }
    };
    (verdict, format!("{line}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let ask = |text: &str| serde_json::from_str::<Request>(text).ok();
        assert_eq!(ask("{\"do\":\"status\"}"), Some(Request::Status));
        assert_eq!(ask("{\"do\":\"stop\"}"), None);
        assert_eq!(ask(""), None);
    }

    #[test]
    fn only_a_running_service_has_been_up() {
        let up = |state| ServiceStatus::new("a", state, 0, None, 5000).up_s;
        assert_eq!(up(State::Running { since_ms: 1000, failures: 0 }), Some(4));
        assert_eq!(up(State::Pausing { until_ms: 9000, failures: 1 }), None);
    }
}
