//! `health = { notify = true }`: a service says by itself that it is ready, as sd_notify(3) has it: a
//! datagram that holds the line `READY=1`, to the socket that `NOTIFY_SOCKET` names.
//!
//! Each service sees a socket of its own, so who speaks is known. That it has spoken is remembered in
//! a file: a later manager of the same boot finds it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

use super::file::MountEntry;

/// A folder for each service that speaks, with its socket, and beside it the mark that it has spoken.
const FOLDER: &str = "/run/bascule/notify";
/// Where the service sees its folder.
const INSIDE: &str = "/run/notify";
/// The socket in the folder.
const SOCKET: &str = "socket";
/// The largest datagram that is looked at, in bytes; systemd takes as much.
const DATAGRAM_MAX: usize = 4096;

/// The ear for one service.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    mark: PathBuf,
}

/// What the service is shown, beside what its file says.
#[must_use]
pub fn mount(name: &str) -> MountEntry {
    MountEntry {
        source: Path::new(FOLDER).join(name).display().to_string(),
        target: Some(INSIDE.into()),
        write: false,
        optional: false,
    }
}

/// The variable that tells it, `NAME=value`.
#[must_use]
pub fn variable() -> String {
    format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}")
}

impl Notify {
    /// Listens for the service `name`; `starts` where it is started anew and has said nothing yet.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(name: &str, starts: bool) -> io::Result<Self> {
        Self::listen_in(Path::new(FOLDER), name, starts)
    }

    fn listen_in(at: &Path, name: &str, starts: bool) -> io::Result<Self> {
        let folder = at.join(name);
        fs::create_dir_all(&folder)?;
        let mark = at.join(format!("{name}.ready"));
        let path = folder.join(SOCKET);
        // In the same folder, which a running service goes on seeing.
        for old in std::iter::once(&path).chain(starts.then_some(&mark)) {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let socket = UnixDatagram::bind(&path)?;
        // The service may run as any user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(Self { socket, mark })
    }

    /// Waits until the service is ready, or finds that it was.
    pub async fn ready(&self) {
        if self.mark.exists() {
            return;
        }
        let mut datagram = [0; DATAGRAM_MAX];
        loop {
            let length = self.next(&mut datagram).await;
            let text = datagram.get(..length).unwrap_or_default();
            if text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                // Without the mark, a later manager waits for a word that does not come again.
                if let Err(error) = fs::write(&self.mark, "") {
                    eprintln!("os-services: note {}: {error}", self.mark.display());
                }
                return;
            }
        }
    }

    /// Takes what else it says, for ever: nobody else would, and it would wait.
    pub async fn listen_on(&self) {
        let mut datagram = [0; DATAGRAM_MAX];
        loop {
            self.next(&mut datagram).await;
        }
    }

    async fn next(&self, datagram: &mut [u8]) -> usize {
        match self.socket.recv(datagram).await {
            Ok(length) => length,
            // A socket of our own does not fail; were it to, nothing more is heard.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram as Client;
    use std::time::Duration;

    #[test]
    fn ready_is_heard_once_and_remembered() {
        let at = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ear = Notify::listen_in(&at, "web", true).unwrap();
            let client = Client::unbound().unwrap();
            client.connect(at.join("web").join(SOCKET)).unwrap();
            let soon = Duration::from_millis(50);
            for other in ["STATUS=READY=1", "READY=10", "READY=", "\u{0}READY=1"] {
                client.send(other.as_bytes()).unwrap();
            }
            assert!(tokio::time::timeout(soon, ear.ready()).await.is_err(), "not that");
            client.send(b"STATUS=up\nREADY=1\nMAINPID=1").unwrap();
            ear.ready().await;
            drop(ear);
            // Another manager, the same run.
            let ear = Notify::listen_in(&at, "web", false).unwrap();
            ear.ready().await;
            // Another run.
            let ear = Notify::listen_in(&at, "web", true).unwrap();
            assert!(tokio::time::timeout(soon, ear.ready()).await.is_err(), "it says so again");
        });
        fs::remove_dir_all(at).unwrap();
    }
}
