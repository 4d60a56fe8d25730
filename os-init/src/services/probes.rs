//! The gate's probes: sshd's banner, the record helper, the updater's self-test.
//!
//! They run beside the manager's loop, each bounded, and leave their last answer where the loop
//! reads it.

use super::file::ServiceFile;
use super::runtime::Runtime;
use crate::gate::Probe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const PAUSE: Duration = Duration::from_secs(2);
/// Between two questions once all is well: for each, sshd starts a program and writes a line.
const GOOD_PAUSE: Duration = Duration::from_secs(15);
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Its self-test opens a slot and checks a signature: slow only on a very slow disk.
const SELF_TEST_MAX: Duration = Duration::from_secs(60);

/// The last answers.
#[derive(Debug, Clone)]
pub struct Probed {
    /// sshd's banner.
    pub ssh: Probe,
    /// The record helper.
    pub record: Probe,
    /// The updater's self-test.
    pub updater: Probe,
}

/// Starts the probes; the returned place always holds their last answers.
pub fn spawn(runtime: Runtime, updater: Option<Arc<ServiceFile>>) -> Arc<Mutex<Probed>> {
    let place = Arc::new(Mutex::new(Probed {
        ssh: Probe::Pending,
        record: Probe::Pending,
        updater: Probe::Pending,
    }));
    let answers = Arc::clone(&place);
    tokio::spawn(async move {
        loop {
            let ssh = ssh_banner().await;
            let record = tokio::task::spawn_blocking(record_answers)
                .await
                .unwrap_or_else(|e| Probe::Bad(format!("probe broke: {e}")));
            let good = ssh == Probe::Good && record == Probe::Good;
            {
                let mut probed = answers.lock().unwrap_or_else(PoisonError::into_inner);
                probed.ssh = ssh;
                probed.record = record;
            }
            tokio::time::sleep(if good { GOOD_PAUSE } else { PAUSE }).await;
        }
    });
    if let Some(file) = updater {
        tokio::spawn(self_test(runtime, file, Arc::clone(&place)));
    }
    place
}

async fn ssh_banner() -> Probe {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", 22)).await?;
        let mut banner = [0_u8; 8];
        stream.read_exact(&mut banner).await?;
        Ok::<_, std::io::Error>(banner)
    };
    match tokio::time::timeout(PROBE_MAX, ask).await {
        Ok(Ok(banner)) if banner == *b"SSH-2.0-" => Probe::Good,
        Ok(Ok(_)) => Probe::Bad("does not speak SSH".into()),
        Ok(Err(error)) => Probe::Bad(format!("does not answer: {error}")),
        Err(_) => Probe::Bad("sends no banner".into()),
    }
}

fn record_answers() -> Probe {
    match crate::record::Client::connect().and_then(|mut client| client.get()) {
        Ok(_) => Probe::Good,
        Err(error) => Probe::Bad(format!("cannot be read: {error}")),
    }
}

/// Runs the updater's self-test in the updater's own container until it passes once.
async fn self_test(runtime: Runtime, file: Arc<ServiceFile>, place: Arc<Mutex<Probed>>) {
    loop {
        if matches!(runtime.running(&file.name).await, Ok(Some(_))) {
            let program = file.command.first().map_or("", String::as_str);
            let answer = match runtime
                .exec(&file, "self-test", &[program, "--self-test"], SELF_TEST_MAX)
                .await
            {
                Ok(0) => Probe::Good,
                Ok(status) => Probe::Bad(format!("self-test ended with {status}")),
                Err(why) => Probe::Bad(why.to_string()),
            };
            let passed = answer == Probe::Good;
            place.lock().unwrap_or_else(PoisonError::into_inner).updater = answer;
            if passed {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
