//! Disks of machines that are off, made once and started from often: the counterpart of
//! [`crate::template`] for scenarios that begin with a boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::disk::Places;
use crate::machine::{Machine, Options};
use crate::template::Template;
use crate::{artifacts, guest, kept};

const DISK: &str = "disk.qcow2";
const SHUT_DOWN: Duration = Duration::from_secs(120);

/// A machine that was switched off properly; read-only once made.
#[derive(Debug, Clone)]
pub struct Stopped {
    dir: PathBuf,
}

impl Stopped {
    /// Release 1 ran in slot A; release 2 is in slot B and armed for its trial.
    ///
    /// # Errors
    /// The machine does not start, or the update fails.
    pub fn armed() -> Result<Self> {
        let template = Template::armed()?;
        Self::made("armed", &template.base(), || template.start("stopped-armed"))
    }

    /// Release 2 ran in slot B, confirmed; release 1 is in slot A.
    ///
    /// # Errors
    /// As [`Stopped::armed`].
    pub fn updated() -> Result<Self> {
        let armed = Self::armed()?;
        Self::made("updated", &armed.disk(), || {
            let mut machine = Machine::start(Options::new("stopped-updated", &armed.disk()))?;
            let running = guest::wait_confirmed(&mut machine, guest::BOOT)?;
            ensure!(running == (2, "b".to_owned()), "{running:?} runs");
            Ok(machine)
        })
    }

    /// Its disk, a base for overlays.
    pub fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// Where things lie on it.
    ///
    /// # Errors
    /// What was written down is gone.
    pub fn places(&self) -> Result<Places> {
        let text = fs::read(self.dir.join("boot.json")).context("read a kept boot.json")?;
        let facts: Value = serde_json::from_slice(&text).context("parse a kept boot.json")?;
        Places::of(&facts)
    }

    /// Keeps the disk of the machine that `run` gives, under `name`, once it is off. It is an
    /// overlay of the disk `base`, and holds release 2.
    fn made(name: &str, base: &Path, run: impl FnOnce() -> Result<Machine>) -> Result<Self> {
        let key = kept::key(&[base, &artifacts::release("v2")?.slot()], "")?;
        let dir = kept::folder("stopped", name, &key, |dir| {
            let machine = run().with_context(|| format!("make the disk `{name}`"))?;
            keep(dir, machine)
        })?;
        Ok(Self { dir })
    }
}

/// Switches the machine off and keeps its disk in `dir`.
fn keep(dir: &Path, mut machine: Machine) -> Result<()> {
    let facts = guest::boot_facts(&machine)?;
    fs::write(dir.join("boot.json"), facts.to_string()).context("keep boot.json")?;
    // The connection may break before the answer.
    machine.ssh()?.run("poweroff").map(drop)?;
    machine.wait_off(SHUT_DOWN)?;
    fs::rename(machine.disk_file(), dir.join(DISK)).context("keep the machine's disk")
}
