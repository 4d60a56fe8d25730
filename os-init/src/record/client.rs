//! Asks the record helper. Synchronous; each call is bounded.

use super::protocol::{Answer, LINE_MAX, Request};
use partition_layout::boot_state::{Action, Event};
use partition_layout::record::Record;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A disk that takes longer for one sector has failed for our purposes.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Why there is no record for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A rule forbids it; nothing was written.
    Refused(String),
    /// The helper, or its disk, failed.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// A connection to the helper.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

fn failed(tried: &str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Failed(format!("{tried}: {error}"))
}

impl Client {
    /// Connects to the helper of this machine.
    ///
    /// # Errors
    /// [`Error::Failed`] when it does not run.
    pub fn connect() -> Result<Self, Error> {
        Self::connect_at(Path::new(super::SOCKET))
    }

    /// Connects to a helper at `socket`.
    ///
    /// # Errors
    /// [`Error::Failed`] when nothing listens there.
    pub fn connect_at(socket: &Path) -> Result<Self, Error> {
        let tried = format!("connect to the record helper at {}", socket.display());
        let stream = UnixStream::connect(socket).map_err(failed(&tried))?;
        stream
            .set_read_timeout(Some(ANSWER_MAX))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_MAX)))
            .map_err(failed(&tried))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The newest record.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn get(&mut self) -> Result<Record, Error> {
        self.ask(Request::Get).map(|(_, record)| record)
    }

    /// Performs an event; the returned record is durable.
    ///
    /// # Errors
    /// [`Error`].
    pub fn apply(&mut self, event: Event) -> Result<(Action, Record), Error> {
        self.ask(Request::Apply(event))
    }

    fn ask(&mut self, request: Request) -> Result<(Action, Record), Error> {
        let tried = "ask the record helper";
        self.stream.get_mut().write_all(request.encode().as_bytes()).map_err(failed(tried))?;
        let mut line = String::new();
        let mut bounded = self.stream.by_ref().take(LINE_MAX as u64);
        bounded.read_line(&mut line).map_err(failed(tried))?;
        match Answer::decode(&line) {
            Some(Answer::Ok(action, record)) => Ok((action, *record)),
            Some(Answer::Refused(why)) => Err(Error::Refused(why)),
            Some(Answer::Failed(why)) => Err(Error::Failed(why)),
            None => Err(Error::Failed(format!("{tried}: no answer that is understood"))),
        }
    }
}
