//! Whether a service is well: the question of its file, asked again and again.

use super::file::{Health, Question, ServiceFile};
use super::run;
use super::runtime::Runtime;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The answers so far.
#[derive(Debug, Default)]
pub struct Asked {
    well: bool,
    bad: u32,
}

/// What an answer comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing new.
    Nothing,
    /// It is well, for the first time.
    Well,
    /// It has failed: why.
    Failed(String),
}

impl Asked {
    /// Takes an answer, the time since the start, and the rules.
    pub fn take(&mut self, answer: Result<(), String>, up: Duration, health: &Health) -> Said {
        let why = match answer {
            Ok(()) => {
                self.bad = 0;
                let first = !std::mem::replace(&mut self.well, true);
                return if first { Said::Well } else { Said::Nothing };
            }
            Err(why) => why,
        };
        if !self.well && up < Duration::from_secs(health.start_s) {
            return Said::Nothing;
        }
        self.bad = self.bad.saturating_add(1);
        if self.bad < health.retries {
            return Said::Nothing;
        }
        Said::Failed(format!("is not well: {why}, {} times in a row", self.bad))
    }
}

/// Asks once: well, or why not; `None` where nobody could be asked.
pub async fn probe(
    runtime: &Runtime,
    file: &Arc<ServiceFile>,
    health: &Health,
) -> Option<Result<(), String>> {
    let limit = Duration::from_secs(health.timeout_s);
    // Checked when the file was read.
    let question = health.question().ok()?;
    if let Question::Exec(words) = question {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        return match run::exec(runtime, file, "health", &words, limit).await {
            Ok(0) => Some(Ok(())),
            Ok(status) => Some(Err(format!("its probe ended with status {status}"))),
            Err(why) if why.runtime => None,
            Err(why) => Some(Err(why.to_string())),
        };
    }
    let asked = async {
        match question {
            Question::Tcp(port) => connect(&format!("127.0.0.1:{port}")).await.map(drop),
            Question::Http(address, path) => http(address, path).await,
            Question::Exec(_) | Question::Notify => Ok(()),
        }
    };
    let silent = |_| Err(format!("no answer within {} s", limit.as_secs()));
    Some(tokio::time::timeout(limit, asked).await.unwrap_or_else(silent))
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("connect to {address}: {error}"))
}

async fn http(address: &str, path: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("ask {address}: {error}");
    let mut stream = connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    // "HTTP/1.1 200" is all that is asked for.
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).await.map_err(told)?;
    match status(&head) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("{address}{path} answers {status}")),
        None => Err(format!("{address} does not speak HTTP")),
    }
}

/// The status in the first 12 bytes of an answer (RFC 9112, 4).
fn status(head: &[u8; 12]) -> Option<u16> {
    let text = std::str::from_utf8(head).ok()?;
    text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let text = "format = 1\nname = \"a\"\ncommand = [\"/x\"]\nhealth = { tcp = 1 }\n";
        ServiceFile::parse(text).unwrap().health.unwrap()
    }

    #[test]
    fn bad_answers_count_once_it_was_well_or_has_had_its_time() {
        let (health, mut asked) = (health(), Asked::default());
        let bad = || Err("x".to_owned());
        let at = Duration::from_secs;
        for second in 0..30 {
            assert_eq!(asked.take(bad(), at(second), &health), Said::Nothing);
        }
        assert_eq!(asked.take(Ok(()), at(30), &health), Said::Well);
        assert_eq!(asked.take(Ok(()), at(31), &health), Said::Nothing);
        assert_eq!(asked.take(bad(), at(32), &health), Said::Nothing);
        assert_eq!(asked.take(bad(), at(33), &health), Said::Nothing);
        assert_eq!(asked.take(Ok(()), at(34), &health), Said::Nothing, "it forgives");
        assert_eq!(asked.take(bad(), at(35), &health), Said::Nothing);
        assert_eq!(asked.take(bad(), at(36), &health), Said::Nothing);
        let why = "is not well: x, 3 times in a row".to_owned();
        assert_eq!(asked.take(bad(), at(37), &health), Said::Failed(why));

        let mut never = Asked::default();
        assert_eq!(never.take(bad(), at(30), &health), Said::Nothing);
        assert_eq!(never.take(bad(), at(31), &health), Said::Nothing);
        assert!(matches!(never.take(bad(), at(32), &health), Said::Failed(_)));
    }

    #[test]
    fn a_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for bad in [
            b"HTTP/1.1 2x0",
            b"SSH-2.0-Open",
            b"HTTP/2 200 x",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(status(bad), None);
        }
    }
}
