//! PID 1: sets up, keeps a few processes up, pets the watchdog, confirms the boot or gives it up,
//! stops in order.
//!
//! It never blocks: one loop over non-blocking descriptors; the record helper is asked by a thread;
//! lines for people go to the kernel log. After the boot is confirmed nothing here panics on what
//! comes from outside.
//!
//! - [`decide`]: the health gate's phases, pure; - [`ask_record`]: the thread that asks the helper;
//! - [`run_loop`]: the loop.

pub mod ask_record;
pub mod decide;
pub mod run_loop;

use crate::boot_facts::{self, BootFacts};
use crate::console::warn;
use crate::state::Trouble;
use crate::watchdog::Petted;
use crate::{hardware, identity, setup, state};
use nix::sys::mman::{MlockAllFlags, mlockall};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const CONTAINERD_CONFIG: &str = "/run/bascule/containerd.toml";

/// Runs as PID 1. Does not return.
pub fn run() -> ExitCode {
    let mut watchdog = Petted::default();
    watchdog.arm();
    watchdog.tell();
    // A machine that is short of memory or has lost its disk must still be able to leave.
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        warn(&format!("lock the memory of PID 1: {error}"));
    }
    setup::mounts();
    setup::kernel_settings();
    let mut facts = match BootFacts::load() {
        Ok(facts) => facts,
        Err(error) => {
            warn(&format!("read {}: {error}; rebooting", boot_facts::PATH));
            crate::shutdown::leave(crate::shutdown::How::Reboot, &mut || watchdog.pet());
        }
    };
    // The kernel ends a PID 1 that panics; before confirm that is a failed try, as it should be.
    if let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        hardware::load(release.trim());
    }
    let disk = facts.disk.trim_start_matches("/dev/").to_string();
    let state = state::bring_up(&disk, &mut || watchdog.pet());
    if let Err(Trouble::Full(why) | Trouble::Broken(why)) = &state {
        warn(&format!("state is degraded: {why}"));
        facts.state = "degraded".into();
        facts.state_reason = Some(why.clone());
    }
    facts.version = version();
    let esp = esp_device(&disk);
    let config = setup::configuration(state.is_ok(), esp.as_deref());
    identity::settle(config.hostname.as_deref());
    watchdog.pet();
    identity::host_key();
    if let Err(error) = kernel_abi::network::loopback_up() {
        warn(&format!("bring the loopback interface up: {error}"));
    }
    for problem in [
        facts.store(Path::new(boot_facts::PATH)).err().map(|e| format!("write boot.json: {e}")),
        fs::write(CONTAINERD_CONFIG, CONTAINERD).err().map(|e| format!("containerd.toml: {e}")),
    ]
    .into_iter()
    .flatten()
    {
        warn(&problem);
    }
    let boot_status = watchdog.boot_status();
    let judges = !matches!(state, Err(Trouble::Broken(_)));
    run_loop::Loop::new(watchdog, facts, judges).run(boot_status)
}

/// containerd for the OS's own services alone: no CRI, nothing on the state partition.
const CONTAINERD: &str = r#"version = 2
root = "/run/containerd/root"
state = "/run/containerd/state"
oom_score = -999
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[debug]
  level = "warn"
"#;

fn version() -> String {
    let text = fs::read_to_string("/usr/share/bascule/release.json").unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|release| Some(release.get("version")?.as_str()?.to_string()))
        .unwrap_or_default()
}

fn esp_device(disk: &str) -> Option<String> {
    use partition_layout::{gpt, guid};
    let path = format!("/dev/{disk}");
    let mut device = kernel_abi::FileDisk::open(Path::new(&path), false).ok()?;
    let (table, _) = gpt::read(&mut device).ok()?;
    let offset = table.find(guid::ESP)?.first.checked_mul(u64::from(table.sector_size))?;
    crate::find_disk::partition_device(disk, offset)
}

#[cfg(test)]
mod tests {
    /// IN-5: nothing on the state partition, whole or broken, reaches the containerd that a boot
    /// needs: every path that it is told lies under `/run`, a file system of this boot alone, and
    /// what would have a folder of its own elsewhere is off.
    #[test]
    fn containerd_is_told_no_path_outside_run() {
        fn strings<'a>(value: &'a toml::Value, into: &mut Vec<&'a str>) {
            match value {
                toml::Value::String(text) => into.push(text),
                toml::Value::Array(list) => list.iter().for_each(|item| strings(item, into)),
                toml::Value::Table(table) => table.values().for_each(|item| strings(item, into)),
                _ => {}
            }
        }
        let config: toml::Value = toml::from_str(super::CONTAINERD).unwrap();
        let mut all = Vec::new();
        strings(&config, &mut all);
        let paths: Vec<&str> = all.iter().copied().filter(|text| text.contains('/')).collect();
        assert_eq!(paths.len(), 3, "root, state, socket: {paths:?}");
        assert!(paths.iter().all(|path| path.starts_with("/run/containerd/")), "{paths:?}");
        for key in ["root", "state"] {
            assert!(
                config.get(key).is_some_and(toml::Value::is_str),
                "{key}: the default is in /var"
            );
        }
        // Their own folders are /var/lib/containers, /opt/containerd and /var/run/nri.
        for plugin in ["grpc.v1.cri", "internal.v1.opt", "nri.v1.nri"] {
            assert!(all.contains(&format!("io.containerd.{plugin}").as_str()), "{plugin}");
        }
    }
}
