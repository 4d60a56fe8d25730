//! What a registry's answer can mean to us.

use std::time::Duration;

/// Why a question to a registry has no good answer. Nothing on this machine has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryError {
    /// The registry says, in its own form, that this does not exist.
    Absent(String),
    /// Nothing is known: no answer, an error of the server's, or not a registry's answer.
    CannotKnow {
        /// What was tried, on what, and the cause; one line.
        what: String,
        /// Not before this may be asked again, where the server said so.
        retry_after: Option<Duration>,
    },
    /// The bytes received are not those that were asked for.
    Corrupt(String),
    /// The server says no to these credentials, or to having none.
    Denied(String),
}

impl RegistryError {
    /// An answer that says nothing, without a wait that the server asked for.
    #[must_use]
    pub fn cannot_know(what: impl Into<String>) -> RegistryError {
        RegistryError::CannotKnow { what: what.into(), retry_after: None }
    }
}

impl std::fmt::Display for RegistryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RegistryError::Absent(what)
            | RegistryError::CannotKnow { what, .. }
            | RegistryError::Corrupt(what)
            | RegistryError::Denied(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RegistryError {}
