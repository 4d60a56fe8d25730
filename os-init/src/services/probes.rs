//! The gate's probes: sshd's banner, the record helper, the updater's self-test.
//!
//! They run beside the manager's loop, each bounded, and leave their last answer where the loop
//! reads it.

use super::file::ServiceFile;
use super::run;
use super::runtime::Runtime;
use crate::gate::Probe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

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

impl Probed {
    const NOTHING: Self =
        Self { ssh: Probe::Pending, record: Probe::Pending, updater: Probe::Pending };
}

/// The probes, which run.
pub struct Probes {
    place: Arc<Mutex<Probed>>,
    /// By what the updater runs; a new value has everything asked again.
    asked: watch::Sender<Option<Arc<ServiceFile>>>,
}

impl Probes {
    /// The last answers.
    #[must_use]
    pub fn answers(&self) -> Probed {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets all answers and asks again; `updater` is what the updater runs by.
    pub fn again(&self, updater: Option<Arc<ServiceFile>>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Probed::NOTHING;
        self.asked.send_replace(updater);
    }
}

/// Starts the probes.
#[must_use]
pub fn spawn(runtime: Runtime) -> Probes {
    let place = Arc::new(Mutex::new(Probed::NOTHING));
    let (asked, mut again) = watch::channel(None);
    let answers = Arc::clone(&place);
    tokio::spawn(self_test(runtime, again.clone(), Arc::clone(&place)));
    tokio::spawn(async move {
        loop {
            again.mark_unchanged();
            let ssh = ssh_banner().await;
            let record = tokio::task::spawn_blocking(record_answers)
                .await
                .unwrap_or_else(|e| Probe::Bad(format!("probe broke: {e}")));
            let good = ssh == Probe::Good && record == Probe::Good;
            {
                let mut probed = answers.lock().unwrap_or_else(PoisonError::into_inner);
                // Asked before it was to be asked again: no answer to that.
                if !again.has_changed().unwrap_or(false) {
                    probed.ssh = ssh;
                    probed.record = record;
                }
            }
            let pause = if good { GOOD_PAUSE } else { PAUSE };
            // Over, or to be asked again.
            let _ = tokio::time::timeout(pause, again.changed()).await;
        }
    });
    Probes { place, asked }
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

/// Runs the updater's self-test in the updater's own container until it passes, and whenever it is
/// asked again.
async fn self_test(
    runtime: Runtime,
    mut asked: watch::Receiver<Option<Arc<ServiceFile>>>,
    place: Arc<Mutex<Probed>>,
) {
    loop {
        let file = asked.borrow_and_update().clone();
        let answer = match file {
            Some(file) => test_once(&runtime, &file).await,
            None => None,
        };
        let passed = answer == Some(Probe::Good);
        let stale = asked.has_changed().unwrap_or(false);
        if let Some(answer) = answer.filter(|_| !stale) {
            place.lock().unwrap_or_else(PoisonError::into_inner).updater = answer;
        }
        if passed && asked.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `None` while the updater does not run.
async fn test_once(runtime: &Runtime, file: &Arc<ServiceFile>) -> Option<Probe> {
    if !matches!(runtime.running(&file.name).await, Ok(Some(_))) {
        return None;
    }
    let program = file.command.first().map_or("", String::as_str);
    let words = [program, "--self-test"];
    Some(match run::exec(runtime, file, "self-test", &words, SELF_TEST_MAX).await {
        Ok(0) => Probe::Good,
        Ok(status) => Probe::Bad(format!("self-test ended with {status}")),
        Err(why) => Probe::Bad(why.to_string()),
    })
}
