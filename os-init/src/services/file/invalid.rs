//! Why a service file is refused.

use super::FILE_MAX;
use std::fmt;

/// Why a service file, or a set of them, is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// It cannot be read; the system's words.
    Unreadable(String),
    /// Larger than [`FILE_MAX`].
    TooLarge,
    /// Not TOML, or not of this format; the parser's words.
    Syntax(String),
    /// A format this release does not know.
    Format(u32),
    /// A value that breaks a rule: the key and the rule.
    Value(&'static str, String),
    /// Two files with one name.
    Duplicate(String),
    /// A service that does not exist is named: who names it, whom.
    Unknown(String, String),
    /// A scheduled service is required: who requires whom.
    Scheduled(String, String),
    /// A service wants to stand before a built-in one: who, whom.
    BeforeBuiltIn(String, String),
    /// Services that wait for each other.
    Cycle(Vec<String>),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::TooLarge => write!(f, "larger than {FILE_MAX} bytes"),
            Self::Syntax(why) => write!(f, "{}", why.replace('\n', " ").trim()),
            Self::Format(n) => write!(f, "format {n} is not known to this release (known: 1)"),
            Self::Value(key, rule) => write!(f, "`{key}` {rule}"),
            Self::Duplicate(name) => write!(f, "two services are named `{name}`"),
            Self::Unknown(who, whom) => {
                write!(f, "`{who}` names the service `{whom}`, which does not exist or is left out")
            }
            Self::Scheduled(who, whom) => write!(
                f,
                "`{who}` requires `{whom}`, which is scheduled: it may not run for a long time yet"
            ),
            Self::BeforeBuiltIn(who, whom) => {
                write!(f, "`before` of `{who}` names `{whom}`: built-in services wait for no other")
            }
            Self::Cycle(names) => write!(f, "these wait for each other: {}", names.join(", ")),
        }
    }
}

impl std::error::Error for Invalid {}
