//! What others may ask of PID 1: `/run/bascule/control.sock`, for root alone.
//!
//! One JSON line is answered by one JSON line.
//!
//! | request | meaning |
//! |---|---|
//! | `{"do":"status"}` | how this boot stands |
//! | `{"do":"reboot"}`, `{"do":"poweroff"}` | stop in order |
//! | `{"do":"gate","verdict":"pending"｜"passed"｜"failed","reason":"…"}` | from `os-services` only |

use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The socket.
pub const SOCKET: &str = "/run/bascule/control.sock";
/// The longest request, in bytes.
pub const REQUEST_MAX: usize = 4096;
/// The gate's word in [`Status`] while its verdict is waited for.
pub const WAITING: &str = "waiting";
/// How long a caller waits for PID 1, which answers within one turn of its loop.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    /// How does this boot stand?
    Status,
    /// Stop in order and start again.
    Reboot,
    /// Stop in order and switch off.
    Poweroff,
    /// How the health gate stands.
    Gate {
        /// The verdict.
        verdict: Told,
        /// What is missing, or why it failed.
        #[serde(default)]
        reason: String,
    },
}

/// A verdict as told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Not yet.
    Pending,
    /// Everything holds.
    Passed,
    /// It will not come.
    Failed,
}

/// How this boot stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Status {
    /// `waiting`, `confirmed`, `failed`, or `degraded`.
    pub gate: String,
    /// What is missing, or why.
    pub reason: String,
    /// Seconds since the kernel started, when the gate was decided.
    pub decided_s: Option<u64>,
    /// What went wrong in this boot, in a line each.
    pub notes: Vec<String>,
}

/// Reads a request.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Request, String> {
    serde_json::from_str(line).map_err(|e| format!("request not understood: {e}"))
}

/// Sends a request to PID 1 and returns the line it answers.
///
/// # Errors
/// The system's, when PID 1 does not answer in time.
pub fn ask(request: &Request) -> io::Result<String> {
    let mut stream = UnixStream::connect(Path::new(SOCKET))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let line = serde_json::to_string(request).map_err(io::Error::other)?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(64 * 1024)).read_line(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_others_refused() {
        assert_eq!(parse("{\"do\":\"reboot\"}"), Ok(Request::Reboot));
        assert_eq!(
            parse("{\"do\":\"gate\",\"verdict\":\"passed\"}\n"),
            Ok(Request::Gate { verdict: Told::Passed, reason: String::new() })
        );
        for bad in ["", "{}", "reboot", "{\"do\":\"gate\",\"verdict\":\"maybe\"}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
