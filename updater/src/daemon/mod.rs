//! `osupdated`: one installation at a time, asked for or by policy, and the account of what became
//! of it.
//!
//! # Reading order
//! [`jobs`] runs an order and writes it down; [`status`] tells how things stand; [`watch`] is what
//! happens without anybody asking; [`service`] answers on the socket, [`images`] where images of
//! services are asked for.

pub mod images;
pub mod jobs;
pub mod service;
pub mod status;
pub mod watch;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch as channel;

use crate::clock::now_s;
use crate::engine::install::Progress;
use crate::failure::Failure;
use crate::history::{Entry, History};
use crate::outcome::PendingFile;
use crate::settings::Settings;
use crate::site::Site;

/// What the daemon knows between two events.
pub struct Daemon {
    /// The machine.
    pub site: Site,
    /// Held by the one installation that may run.
    busy: tokio::sync::Mutex<()>,
    /// Held by the one pull of a service's image that may run.
    pulling: tokio::sync::Mutex<()>,
    progress: channel::Sender<Progress>,
    history: History,
    pending: PendingFile,
    look: Mutex<Look>,
}

/// What the daemon does by itself, and when next.
#[derive(Debug, Clone, Default)]
struct Look {
    next: Option<Instant>,
    failures: u32,
    last: String,
    /// Why a waiting release is not started now.
    waiting: String,
    /// The last failure written down, so that the same one is not written at every look.
    noted: Option<(String, String)>,
}

impl Daemon {
    /// The daemon of this machine.
    #[must_use]
    pub fn new(site: Site) -> Arc<Daemon> {
        // A state that cannot be made shows in status and in the history's own errors.
        let _ = std::fs::create_dir_all(&site.state);
        Arc::new(Daemon {
            history: History::new(&site.state),
            pending: PendingFile::new(&site.state),
            busy: tokio::sync::Mutex::new(()),
            pulling: tokio::sync::Mutex::new(()),
            progress: channel::Sender::new(idle()),
            look: Mutex::new(Look::default()),
            site,
        })
    }

    /// The settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::load(&self.site.config)
    }

    /// Whether an operator has stopped what the daemon does by itself, and why.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        std::fs::read_to_string(self.pause_file()).ok().map(|text| text.trim().to_owned())
    }

    fn pause_file(&self) -> std::path::PathBuf {
        self.site.state.join("paused")
    }

    /// Pauses (with a reason) or resumes. Returns whether that changed anything.
    ///
    /// # Errors
    /// A state fault: it would not survive a reboot.
    pub fn set_paused(&self, reason: Option<&str>) -> Result<bool, Failure> {
        let was = self.paused();
        let file = self.pause_file();
        let done = match reason {
            Some(reason) => crate::engine::checkpoint::replace(&file, reason.as_bytes()),
            None if was.is_some() => remove(&file),
            None => Ok(()),
        };
        done.map_err(|error| {
            let message = format!("write {}: {error}", file.display());
            Failure::new(crate::failure::Class::State, "state", message)
        })?;
        Ok(was.is_some() != reason.is_some())
    }

    /// Writes an event into the history; what cannot be written is told on the log.
    fn note(&self, mut entry: Entry) {
        entry.at_s = Some(now_s()).filter(|now| *now >= self.site.release.built_s());
        entry.boot_id = self.site.boot.boot_id.clone();
        eprintln!("osupdated: {} {} {} {}", entry.event, entry.version, entry.digest, entry.reason);
        if let Err(error) = self.history.add(&entry) {
            eprintln!("osupdated: write the history: {error}");
        }
    }

    fn with_look<T>(&self, change: impl FnOnce(&mut Look) -> T) -> T {
        let mut look = self.look.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut look)
    }
}

fn remove(file: &Path) -> std::io::Result<()> {
    std::fs::remove_file(file)?;
    match file.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn idle() -> Progress {
    Progress { phase: "idle".into(), ..Progress::default() }
}

/// Peak resident memory of this process in bytes.
#[must_use]
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Peak memory charged to this process' cgroup, page cache included; 0 when it is not told.
#[must_use]
pub fn cgroup_peak_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let folder = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    read(&format!("/sys/fs/cgroup{folder}/memory.peak"))
        .or_else(|| read("/sys/fs/cgroup/memory.peak"))
        .unwrap_or(0)
}

/// A pause until `at`, or none if that is over.
fn until(at: Instant) -> Duration {
    at.saturating_duration_since(Instant::now())
}
