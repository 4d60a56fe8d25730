//! The table `health` of a service file.

use serde::Deserialize;

/// How a service is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A program inside: path and arguments.
    #[serde(default)]
    pub exec: Option<Vec<String>>,
    /// A port of the machine.
    #[serde(default)]
    pub tcp: Option<u16>,
    /// `http://ADDRESS:PORT/PATH`.
    #[serde(default)]
    pub http: Option<String>,
    /// It says so by itself, once: the line `READY=1`, as sd_notify(3) has it.
    #[serde(default)]
    pub notify: bool,
    /// Seconds between two questions.
    #[serde(default = "default_interval_s")]
    pub interval_s: u64,
    /// Seconds after which no answer is a bad one.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// So many bad answers in a row are a failure.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Seconds within which bad answers do not count, before the first good one.
    #[serde(default = "default_start_s")]
    pub start_s: u64,
}

const ONE: &str = "has not exactly one of `exec`, `tcp`, `http` and `notify`";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// A program inside.
    Exec(&'a [String]),
    /// A port of the machine.
    Tcp(u16),
    /// Address with port, and path.
    Http(&'a str, &'a str),
    /// Nothing: it says so by itself.
    Notify,
}

impl Health {
    /// The one question.
    ///
    /// # Errors
    /// The rule that the table breaks.
    pub fn question(&self) -> Result<Question<'_>, &'static str> {
        if [self.interval_s, self.timeout_s, u64::from(self.retries)].contains(&0) {
            return Err("has a zero for `interval_s`, `timeout_s` or `retries`");
        }
        match (&self.exec, self.tcp, &self.http) {
            (None, None, None) if self.notify => Ok(Question::Notify),
            _ if self.notify => Err(ONE),
            (Some(words), None, None) => match words.first() {
                Some(program) if program.starts_with('/') => Ok(Question::Exec(words)),
                _ => Err("`exec` does not begin with an absolute path"),
            },
            (None, Some(port), None) => Ok(Question::Tcp(port)),
            (None, None, Some(url)) => {
                let rest = url.strip_prefix("http://").unwrap_or_default();
                let place = rest.find('/').unwrap_or(rest.len());
                let (address, path) = rest.split_at(place);
                let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
                if !plain || address.parse::<std::net::SocketAddr>().is_err() {
                    return Err("`http` is not http://ADDRESS:PORT/PATH");
                }
                Ok(Question::Http(address, if path.is_empty() { "/" } else { path }))
            }
            _ => Err(ONE),
        }
    }
}

fn default_interval_s() -> u64 {
    10
}

fn default_timeout_s() -> u64 {
    5
}

fn default_retries() -> u32 {
    3
}

fn default_start_s() -> u64 {
    30
}

#[cfg(test)]
mod tests {
    use super::super::{Invalid, ServiceFile};
    use super::*;

    #[test]
    fn health_is_one_question() {
        let asked = |table: &str| {
            let file =
                format!("format = 1\nname = \"a\"\ncommand = [\"/x\"]\nhealth = {{ {table} }}\n");
            ServiceFile::parse(&file).map(|file| file.health.unwrap())
        };
        let http = |url: &str| asked(&format!("http = \"{url}\""));
        assert_eq!(asked("notify = true").unwrap().question(), Ok(Question::Notify));
        assert_eq!(asked("tcp = 80").unwrap().question(), Ok(Question::Tcp(80)));
        for (url, path) in [("http://127.0.0.1:80/a?b", "/a?b"), ("http://127.0.0.1:80", "/")] {
            let health = http(url).unwrap();
            assert_eq!(health.question(), Ok(Question::Http("127.0.0.1:80", path)));
        }
        assert!(http("http://[::1]:80/").is_ok());
        for bad in [
            "interval_s = 1",
            "tcp = 80, exec = [\"/x\"]",
            "tcp = 80, notify = true",
            "notify = false",
            "tcp = 80, retries = 0",
            "exec = []",
            "exec = [\"x\"]",
            "http = \"https://127.0.0.1:80/\"",
            "http = \"http://example:80/\"",
            "http = \"http://127.0.0.1:80/a b\"",
        ] {
            assert!(matches!(asked(bad), Err(Invalid::Value("health", _))), "{bad}");
        }
    }
}
