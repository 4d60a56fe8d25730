//! This machine, as the updater sees it: where things are, and what runs.

use std::path::{Path, PathBuf};

use os_init::boot_facts::BootFacts;
use partition_layout::slot::Slot;
use serde::Deserialize;
use update_manifest::trust::{TrustRoots, TrustedKey};

use crate::failure::{Class, Failure};
use crate::policy::Machine;

/// Where the running release says what it is.
pub const RELEASE: &str = "/usr/share/bascule/release.json";
/// The folder of the keys that may sign releases.
pub const TRUST: &str = "/usr/share/bascule/trust";
/// What the updater keeps.
pub const STATE: &str = "/var/lib/bascule/update";
/// PID 1's socket.
pub const CONTROL: &str = "/run/bascule/control.sock";
/// The daemon's socket.
pub const SOCKET: &str = "/run/bascule/update/osupdated.sock";
/// Largest key file read, in bytes.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// What the running release says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReleaseFacts {
    /// The OS.
    pub product: String,
    /// `x86_64`.
    pub arch: String,
    /// Release number.
    pub release: u64,
    /// Security version.
    pub secver: u32,
    /// Version for people.
    pub version: String,
    /// When it was built, in seconds since 1970: the lower bound of any true time.
    #[serde(default)]
    pub build_time: serde_json::Value,
}

impl ReleaseFacts {
    /// When it was built, in seconds since 1970; 0 when it does not say.
    #[must_use]
    pub fn built_s(&self) -> u64 {
        let value = &self.build_time;
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Site {
    /// What PID 1 knows of this boot.
    pub boot: BootFacts,
    /// The running slot.
    pub running: Slot,
    /// The running release.
    pub release: ReleaseFacts,
    /// The keys that may sign.
    pub roots: TrustRoots,
    /// The configuration file.
    pub config: PathBuf,
    /// The folder on the state partition.
    pub state: PathBuf,
    /// The record helper's socket.
    pub record_socket: PathBuf,
    /// PID 1's socket.
    pub control_socket: PathBuf,
}

impl Site {
    /// The machine that this process runs on.
    ///
    /// # Errors
    /// A state fault when the boot facts or the release facts cannot be read, or no slot runs.
    pub fn load() -> Result<Site, Failure> {
        let boot = BootFacts::load()
            .map_err(|error| fault(os_init::boot_facts::PATH, &error.to_string()))?;
        let running = boot.running().ok_or_else(|| {
            Failure::refused(
                "recovery",
                "the recovery system runs: there is no slot to update from",
            )
        })?;
        let text =
            std::fs::read_to_string(RELEASE).map_err(|error| fault(RELEASE, &error.to_string()))?;
        let release =
            serde_json::from_str(&text).map_err(|error| fault(RELEASE, &error.to_string()))?;
        Ok(Site {
            boot,
            running,
            release,
            roots: load_roots(Path::new(TRUST)),
            config: os_init::config::RUNNING.into(),
            state: STATE.into(),
            record_socket: os_init::record::SOCKET.into(),
            control_socket: CONTROL.into(),
        })
    }

    /// The machine for [`crate::policy::judge`].
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine {
            product: self.release.product.clone(),
            arch: self.release.arch.clone(),
            release: self.release.release,
            running: self.running,
            slot_size: self.boot.place(self.running.other()).size,
        }
    }

    /// The device of a slot.
    #[must_use]
    pub fn device(&self, slot: Slot) -> PathBuf {
        PathBuf::from(&self.boot.place(slot).part)
    }

    /// The architecture in the words of image indexes.
    #[must_use]
    pub fn platform(&self) -> &str {
        match self.release.arch.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    /// A connection to the record helper.
    ///
    /// # Errors
    /// A state fault when it does not answer.
    pub fn record(&self) -> Result<os_init::record::Client, Failure> {
        Ok(os_init::record::Client::connect_at(&self.record_socket)?)
    }
}

/// Reads the keys in `folder`, in the order of their file names; what is no key is left out.
#[must_use]
pub fn load_roots(folder: &Path) -> TrustRoots {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    files.sort();
    TrustRoots::new(files.iter().filter_map(|path| {
        let small = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= KEY_BYTES_MAX);
        let pem = if small { std::fs::read_to_string(path).ok()? } else { return None };
        TrustedKey::from_pem(&path.file_stem()?.to_string_lossy(), &pem)
    }))
}

fn fault(path: &str, cause: &str) -> Failure {
    Failure::new(Class::State, "site", format!("read {path}: {cause}"))
}
