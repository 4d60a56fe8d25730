//! Why a command was not carried out, and the exit code that says so (`docs/exit-codes.md`).

use std::path::Path;

/// Done as asked.
pub const DONE: u8 = 0;
/// There was nothing to do.
pub const NOTHING: u8 = 1;
/// A rule says no, or what was asked for did not work.
pub const REFUSED: u8 = 2;
/// It cannot be found out now; the same may work later.
pub const CANNOT_KNOW: u8 = 3;
/// Bytes are not what was signed.
pub const CORRUPT: u8 = 4;
/// The command line is wrong.
pub const USAGE: u8 = 100;
/// The system failed.
pub const SYSTEM: u8 = 111;

/// A failure, told in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// The line.
    pub message: String,
}

impl Failure {
    /// A rule says no.
    pub fn refused(message: String) -> Self {
        Self { code: REFUSED, message }
    }

    /// The system failed.
    pub fn system(message: String) -> Self {
        Self { code: SYSTEM, message }
    }

    /// Nobody answers at `socket`.
    pub fn silent(who: &str, socket: &Path, why: &str) -> Self {
        let socket = socket.display();
        Self::system(format!("connect to {who} at {socket}: {why}; are you root?"))
    }

    /// What the services manager said.
    pub fn said(status: &tonic::Status) -> Self {
        use tonic::Code;
        let told = status.message();
        match status.code() {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::Aborted
            | Code::PermissionDenied => Self::refused(told.to_owned()),
            Code::Unavailable => Self::system(told.to_owned()),
            _ => Self::system(format!("the services manager went away ({told}); try again")),
        }
    }

    /// The word of its class in JSON.
    pub fn class(&self) -> &'static str {
        match self.code {
            REFUSED => "refused",
            CANNOT_KNOW => "cannot-know",
            CORRUPT => "corrupt",
            _ => "system",
        }
    }
}
