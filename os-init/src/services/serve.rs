//! The manager's two conversations: answering `status`, and telling PID 1 how the gate stands.

use super::status::{REQUEST_MAX, Request, SOCKET, Status, gate_line};
use crate::gate::{Facts, Verdict};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

const CONTROL: &str = "/run/bascule/control.sock";
/// Neither PID 1 nor a caller may hold the manager's loop for longer than this.
const TALK_MAX: Duration = Duration::from_secs(2);

/// Answers on the manager's socket until the process ends.
pub async fn run(status: Arc<Mutex<Status>>) {
    // A socket file of an earlier run of this manager is in the way.
    let _ = std::fs::remove_file(SOCKET);
    let listener = match UnixListener::bind(SOCKET) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("os-services: listen at {SOCKET}: {error}");
            return;
        }
    };
    if let Err(error) = std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o600)) {
        eprintln!("os-services: restrict {SOCKET}: {error}");
        return;
    }
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let now = status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(tokio::time::timeout(TALK_MAX, answer(stream, now)));
    }
}

async fn answer(mut stream: UnixStream, status: Status) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_MAX as u64)).read_line(&mut line).await?;
    let text = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Status) => serde_json::to_string(&status)?,
        Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
    };
    write.write_all(format!("{text}\n").as_bytes()).await
}

/// Judges the facts and tells PID 1; what it answers changes nothing here.
pub async fn tell_gate(facts: &Facts) -> Verdict {
    let (verdict, line) = gate_line(facts);
    let talk = async {
        let mut stream = UnixStream::connect(CONTROL).await?;
        stream.write_all(line.as_bytes()).await?;
        let mut answer = [0_u8; 256];
        stream.read(&mut answer).await
    };
    // PID 1 is told again at the next tick.
    let _ = tokio::time::timeout(TALK_MAX, talk).await;
    verdict
}
