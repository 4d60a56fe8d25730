//! Boot once, start many: a machine that is up and confirmed is kept as memory, device state and
//! disk, and each scenario that does not test the boot itself goes on from there in a moment.
//! The guest's clock stood still meanwhile and is behind, as after a sleep.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::machine::{EMULATED, Machine, Memory, Options, overlay};
use crate::qmp::Qmp;
use crate::registry::Registry;
use crate::{accel, artifacts, guest, kept, wait};

const MEMORY: &str = "memory";
const SERIAL: &str = "serial.log";
const MIGRATE: Duration = Duration::from_secs(60);

/// A stopped machine on disk; read-only once made.
#[derive(Debug, Clone)]
pub struct Template {
    dir: PathBuf,
    options: Options,
}

impl Template {
    /// The machine that runs release `name`, confirmed; booted for it if none is kept yet.
    ///
    /// # Errors
    /// The release is not built, or does not come up.
    pub fn of_release(name: &str) -> Result<Self> {
        let release = artifacts::release(name)?;
        let options = Options::new(&format!("template-{name}"), &release.disk());
        Self::made(&format!("{name}-confirmed"), options, |machine| {
            guest::wait_confirmed(machine, guest::BOOT).map(drop)
        })
    }

    /// The machine that runs release 1, confirmed, with release 2 applied: one reboot before its
    /// trial.
    ///
    /// # Errors
    /// As [`Template::of_release`], or the update fails.
    pub fn armed() -> Result<Self> {
        let from = Self::of_release("v1")?;
        let release = artifacts::release("v2")?;
        let key = kept::key(&[&from.base(), &release.slot()], "")?;
        let dir = kept::folder("templates", "v1-armed", &key, |dir| {
            let registry = Registry::start("template-armed")?;
            registry.publish(&release)?;
            // Memory of its own, and in a file: what is kept in the end.
            fs::copy(from.dir.join(MEMORY), dir.join(MEMORY)).context("copy a machine's memory")?;
            let mut machine = from.prepare("template-armed", |_| {})?;
            from.go_on(&mut machine, &Memory::Kept(dir.join(MEMORY)))?;
            machine.route_registry(Some(registry.port()))?;
            let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
            ensure!(code == 0, "`osupdate apply` ended with {code}: {answer}");
            keep(dir, machine)
        })?;
        Ok(Self { dir, options: from.options })
    }

    /// A template under `name`, made by booting `options` and running `ready` on it.
    ///
    /// It is kept over test runs, as long as its disk, and QEMU, are the same.
    ///
    /// # Errors
    /// The machine does not start, or `ready` fails.
    pub fn made(
        name: &str,
        options: Options,
        ready: impl FnOnce(&mut Machine) -> Result<()>,
    ) -> Result<Self> {
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        let key = kept::key(
            &[&options.disk, qemu],
            &format!("{options:?} {:?} {EMULATED}", accel::chosen()?),
        )?;
        let dir = kept::folder("templates", name, &key, |dir| {
            let mut machine = Machine::prepare(options.clone())?;
            machine.launch(&Memory::Kept(dir.join(MEMORY)), &[])?;
            ready(&mut machine)
                .with_context(|| format!("make template {name}; {}", machine.serial_tail()))?;
            keep(dir, machine)
        })?;
        Ok(Self { dir, options })
    }

    /// A machine of its own that goes on where the template stopped.
    ///
    /// # Errors
    /// QEMU refuses the state.
    pub fn start(&self, name: &str) -> Result<Machine> {
        self.start_with(name, |_| {})
    }

    /// As [`Template::start`], with options changed that the guest cannot see (`write_log`).
    ///
    /// # Errors
    /// QEMU refuses the state.
    pub fn start_with(&self, name: &str, change: impl FnOnce(&mut Options)) -> Result<Machine> {
        let mut machine = self.prepare(name, change)?;
        self.go_on(&mut machine, &Memory::Restored(self.dir.join(MEMORY)))?;
        Ok(machine)
    }

    fn prepare(&self, name: &str, change: impl FnOnce(&mut Options)) -> Result<Machine> {
        let mut options = self.options.clone();
        name.clone_into(&mut options.name);
        options.disk = self.base();
        change(&mut options);
        let machine = Machine::prepare(options)?;
        fs::copy(self.dir.join("vars.fd"), machine.vars()).context("copy firmware variables")?;
        Ok(machine)
    }

    /// Starts `machine` where the template stopped.
    fn go_on(&self, machine: &mut Machine, memory: &Memory) -> Result<()> {
        machine.launch(memory, &["-incoming", "defer"])?;
        let state = self.dir.join("state");
        let qmp = machine.qmp()?;
        share_memory(qmp)?;
        let uri = format!("exec:cat {}", state.display());
        qmp.execute("migrate-incoming", &json!({"uri": uri}))?;
        wait_migrated(qmp)?;
        qmp.execute("cont", &json!({})).map(drop)
    }

    /// What the serial line said from its power on until it stopped.
    ///
    /// # Errors
    /// What was kept is gone.
    pub fn serial(&self) -> Result<String> {
        let bytes = fs::read(self.dir.join(SERIAL)).context("read a template's serial line")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The template's disk; overlays may stand on it, nobody writes to it.
    pub fn base(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }

    /// A copy of the template's disk as it is when the power is cut now; nothing runs.
    ///
    /// # Errors
    /// The overlay cannot be made.
    pub fn disk(&self, path: &Path) -> Result<()> {
        overlay(&self.base(), path)
    }
}

/// Stops the machine and keeps it in `dir`.
fn keep(dir: &Path, mut machine: Machine) -> Result<()> {
    let state = dir.join("state");
    let qmp = machine.qmp()?;
    share_memory(qmp)?;
    qmp.execute("stop", &json!({}))?;
    qmp.execute("migrate", &json!({"uri": format!("exec:cat > {}", state.display())}))?;
    wait_migrated(qmp)?;
    qmp.execute("quit", &json!({}))?;
    machine.wait_off(MIGRATE)?;
    fs::write(dir.join(SERIAL), machine.serial()).context("keep the serial line")?;
    for (from, name) in [(machine.disk_file(), "disk.qcow2"), (machine.vars(), "vars.fd")] {
        fs::rename(&from, dir.join(name)).with_context(|| format!("keep {}", from.display()))?;
    }
    Ok(())
}

fn share_memory(qmp: &mut Qmp) -> Result<()> {
    let capabilities = json!([{"capability": "x-ignore-shared", "state": true}]);
    qmp.execute("migrate-set-capabilities", &json!({"capabilities": capabilities})).map(drop)
}

fn wait_migrated(qmp: &mut Qmp) -> Result<()> {
    wait::until("QEMU to move the machine's state", MIGRATE, || {
        let answer = qmp.execute("query-migrate", &json!({}))?;
        match answer.get("status").and_then(|status| status.as_str()) {
            Some("completed") => Ok(Some(())),
            Some("failed") => bail!("QEMU could not move the machine's state: {answer}"),
            _ => Ok(None),
        }
    })
}
