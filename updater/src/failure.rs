//! What can go wrong with an update, in classes that people and programs act on differently.

use serde::Serialize;

use crate::registry::RegistryError;

/// Whose turn it is after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A rule says no. The same request gets the same answer until something changes.
    Refused,
    /// Nothing is known: ask again later. Never "unsigned", never "no update".
    CannotKnow,
    /// Bytes are not what was signed.
    Corrupt,
    /// This machine's disk does not keep what was written to it. Not the release's fault.
    Disk,
    /// The state partition or the boot record cannot be used. Not the release's fault.
    State,
    /// The system failed otherwise.
    System,
}

impl Class {
    /// The exit code, as in `docs/exit-codes.md`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Refused => 2,
            Class::CannotKnow => 3,
            Class::Corrupt => 4,
            Class::Disk | Class::State | Class::System => 111,
        }
    }

    /// The word in JSON and in the protocol.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Class::Refused => "refused",
            Class::CannotKnow => "cannot-know",
            Class::Corrupt => "corrupt",
            Class::Disk => "disk",
            Class::State => "state",
            Class::System => "system",
        }
    }

    /// The class of a word of the protocol; a word of a later version is the system's.
    #[must_use]
    pub fn from_word(word: &str) -> Class {
        [Class::Refused, Class::CannotKnow, Class::Corrupt, Class::Disk, Class::State]
            .into_iter()
            .find(|class| class.word() == word)
            .unwrap_or(Class::System)
    }
}

/// A failure, told in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What it means.
    pub class: Class,
    /// A fixed word for programs, such as `unsigned` or `arch`.
    pub kind: String,
    /// What was tried, on what, the cause, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of `class`; `kind` is its fixed word.
    pub fn new(class: Class, kind: &str, message: impl Into<String>) -> Failure {
        Failure { class, kind: kind.to_owned(), message: message.into() }
    }

    /// A rule's no.
    pub fn refused(kind: &str, message: impl Into<String>) -> Failure {
        Failure::new(Class::Refused, kind, message)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        let (class, kind) = match &error {
            RegistryError::Absent(_) => (Class::Refused, "absent"),
            RegistryError::CannotKnow { .. } => (Class::CannotKnow, "registry"),
            RegistryError::Denied(_) => (Class::CannotKnow, "denied"),
            RegistryError::Corrupt(_) => (Class::Corrupt, "registry"),
        };
        Failure::new(class, kind, error.to_string())
    }
}

impl From<os_init::record::Error> for Failure {
    fn from(error: os_init::record::Error) -> Failure {
        match error {
            os_init::record::Error::Refused(why) => Failure::refused("record", why),
            os_init::record::Error::Failed(why) => Failure::new(Class::State, "record", why),
        }
    }
}
