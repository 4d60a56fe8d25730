//! The `[update]` table of the machine's configuration.
//!
//! A value that cannot be used costs that value and a message; the default stands in. It is read
//! anew at every use, so a change needs no restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::registry::Reference;
use crate::schedule::Window;

/// Largest configuration read, in bytes.
const SIZE_MAX: u64 = 256 << 10;
/// Shortest poll interval.
const INTERVAL_MIN_S: i64 = 10;
/// Longest poll interval: a month.
const INTERVAL_MAX_S: i64 = 31 * 86_400;

/// How far the daemon goes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Does nothing by itself.
    Off,
    /// Looks whether there is a newer release and says so.
    Check,
    /// Also writes it into the other slot.
    Stage,
    /// Also arms it and reboots, in the window.
    Auto,
}

impl Policy {
    /// The word in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Policy::Off => "off",
            Policy::Check => "check",
            Policy::Stage => "stage",
            Policy::Auto => "auto",
        }
    }
}

/// The settings in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where releases come from.
    pub source: Option<Reference>,
    /// The registry of `source` is reached without TLS.
    pub plain_http: bool,
    /// How far the daemon goes by itself.
    pub policy: Policy,
    /// Between two looks at the registry.
    pub interval: Duration,
    /// When the machine may reboot by itself; `None` is always.
    pub window: Option<Window>,
    /// More certificate authorities, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Login at the registry.
    pub username: Option<String>,
    /// File that holds the password alone.
    pub password_file: Option<PathBuf>,
    /// What could not be used, one line each.
    pub problems: Vec<String>,
}

impl Settings {
    /// Reads the configuration file; a missing one gives the defaults.
    #[must_use]
    pub fn load(path: &Path) -> Settings {
        let small = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= SIZE_MAX);
        let text = if small { std::fs::read_to_string(path) } else { Ok(String::new()) };
        let mut settings = Settings::parse(text.as_deref().unwrap_or_default());
        if !small && path.exists() {
            settings.problems.push(format!("{}: larger than {SIZE_MAX} bytes", path.display()));
        }
        settings
    }

    /// Reads the text of a configuration.
    #[must_use]
    pub fn parse(text: &str) -> Settings {
        let mut settings = Settings {
            source: None,
            plain_http: false,
            policy: Policy::Off,
            interval: Duration::from_secs(3600),
            window: None,
            ca_file: None,
            username: None,
            password_file: None,
            problems: Vec::new(),
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                let told: String = error.message().chars().take(200).collect();
                settings.problems.push(format!("config: {told}"));
                return settings;
            }
        };
        match table.get("update") {
            None => {}
            Some(Value::Table(update)) => {
                for (key, value) in update {
                    if let Err(why) = settings.take(key, value) {
                        settings.problems.push(format!("config: [update] {key}: {why}; left out"));
                    }
                }
            }
            Some(_) => settings.problems.push("config: update is not a table".into()),
        }
        settings
    }

    fn take(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let text = || value.as_str().map(str::to_owned).ok_or("is not a string".to_owned());
        match key {
            "source" => self.source = Some(Reference::parse(&text()?)?),
            "plain_http" => {
                self.plain_http = value.as_bool().ok_or("is not true or false")?;
            }
            "policy" => {
                let word = text()?;
                self.policy = [Policy::Off, Policy::Check, Policy::Stage, Policy::Auto]
                    .into_iter()
                    .find(|policy| policy.word() == word)
                    .ok_or("is not off, check, stage or auto")?;
            }
            "interval_s" => {
                let seconds = value.as_integer().ok_or("is not a whole number")?;
                let seconds = seconds.clamp(INTERVAL_MIN_S, INTERVAL_MAX_S);
                self.interval = Duration::from_secs(seconds.unsigned_abs());
            }
            "window" => {
                let window = Window::parse(&text()?);
                self.window = Some(window.ok_or("is not of the form 02:00-04:00")?);
            }
            "ca_file" => self.ca_file = Some(text()?.into()),
            "username" => self.username = Some(text()?),
            "password_file" => self.password_file = Some(text()?.into()),
            _ => return Err("is not a key of this release".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_value_costs_only_itself() {
        let settings = Settings::parse(
            "hostname = \"x\"\n[update]\nsource = \"10.0.2.2:5000/bascule/os:stable\"\n\
             plain_http = true\npolicy = \"sometimes\"\ninterval_s = 1\nwindow = \"22:00-02:00\"\n\
             typo = 1\n",
        );
        let source = settings.source.map(|source| source.to_string());
        assert_eq!(source.as_deref(), Some("10.0.2.2:5000/bascule/os:stable"));
        assert!(settings.plain_http);
        assert_eq!(settings.policy, Policy::Off);
        assert_eq!(settings.interval, Duration::from_secs(10));
        assert!(settings.window.is_some());
        assert_eq!(settings.problems.len(), 2, "{:?}", settings.problems);
    }

    #[test]
    fn syntax_errors_leave_the_defaults() {
        let settings = Settings::parse("[update\nsource=");
        assert_eq!(settings.policy, Policy::Off);
        assert_eq!(settings.problems.len(), 1);
        assert_eq!(Settings::parse("update = 5").problems.len(), 1);
    }
}
