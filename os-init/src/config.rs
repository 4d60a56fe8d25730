//! The machine's configuration: `/var/lib/bascule/config.toml`.
//!
//! A broken part costs that part and a message, never the boot: each key is read by itself.
//! The `[update]` table belongs to the updater, which reads it from the same file.

use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

/// Where the configuration lies on the state partition.
pub const PATH: &str = "/var/lib/bascule/config.toml";
/// The copy that the running system uses, also when the state partition is broken.
pub const RUNNING: &str = "/run/bascule/config.toml";
/// The largest file that is read, in bytes.
pub const SIZE_MAX: u64 = 256 * 1024;

/// What is configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The machine's name; `None` when none is given.
    pub hostname: Option<String>,
    /// Keys that may log in as root over SSH.
    pub ssh_keys: Vec<String>,
    /// crypt(5) hash of root's password on the local console; without it there is none.
    pub console_password_hash: Option<String>,
    /// The time service.
    pub time: Time,
}

/// The time service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// NTP servers; with none the clock is left alone.
    #[serde(default)]
    pub servers: Vec<String>,
}

impl Config {
    /// Reads a configuration; what is broken keeps its default and is told in the messages.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        // Files saved by other systems begin with a byte order mark and end lines with CR LF.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                problems.push(format!("config: {}", error.to_string().trim().replace('\n', " ")));
                Table::new()
            }
        };
        let mut config = Self::default();
        for (key, value) in table {
            let read = match key.as_str() {
                "hostname" => hostname(value).map(|name| config.hostname = Some(name)),
                "ssh_keys" => take(value).map(|keys| config.ssh_keys = keys),
                "console_password_hash" => {
                    take(value).map(|hash| config.console_password_hash = Some(hash))
                }
                "time" => take(value).map(|time| config.time = time),
                "update" => Ok(()),
                _ => Err("is not a key of this release".into()),
            };
            if let Err(why) = read {
                problems.push(format!("config: `{key}` {why}; left out"));
            }
        }
        (config, problems)
    }

    /// The configuration of the running system; defaults when there is none.
    #[must_use]
    pub fn load_running() -> Self {
        let text = std::fs::read_to_string(RUNNING).unwrap_or_default();
        // PID 1 has told the problems already.
        Self::parse(&text).0
    }
}

/// Reads a configuration file's text.
///
/// # Errors
/// A message, when it cannot be read, is too large or is not UTF-8.
pub fn read(path: &Path) -> Result<String, String> {
    let told = |why: String| format!("read {}: {why}", path.display());
    let size = std::fs::metadata(path).map_err(|e| told(e.to_string()))?.len();
    if size > SIZE_MAX {
        return Err(told(format!("{size} bytes, at most {SIZE_MAX} are read")));
    }
    std::fs::read_to_string(path).map_err(|e| told(e.to_string()))
}

fn take<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    value.try_into().map_err(|e: toml::de::Error| e.to_string().trim().replace('\n', " "))
}

fn hostname(value: Value) -> Result<String, String> {
    let name: String = take(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let ok = (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-');
    ok.then_some(name).ok_or_else(|| "is not a host name (letters, digits, - and .)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_part_costs_only_itself() {
        let (config, problems) = Config::parse(
            "hostname = \"a b\"\nssh_keys = [\"ssh-ed25519 A\"]\ntypo = 1\n[time]\nservers = 5\n\
             [update]\nsource = \"r/x:y\"\n",
        );
        assert_eq!(config.ssh_keys, ["ssh-ed25519 A"]);
        assert_eq!(config.hostname, None);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn syntax_errors_are_told_and_survived() {
        let (config, problems) = Config::parse("hostname = \n");
        assert_eq!(config, Config::default());
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn files_from_other_systems_are_read() {
        let (config, problems) = Config::parse("\u{feff}hostname = \"web1\"\r\n");
        assert_eq!((config.hostname.as_deref(), problems.len()), (Some("web1"), 0));
    }
}
