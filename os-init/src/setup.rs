//! What PID 1 sets up before anything else runs: file systems, limits, the running configuration.

use crate::config::{self, Config};
use crate::console::{say, warn};
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where the ESP is looked into, for a moment.
const ESP: &str = "/run/bascule/esp";
/// The configuration on the ESP, read only while state has none.
const ESP_CONFIG: &str = "bascule/config.toml";

/// Mounts the rest of the kernel's and the temporary file systems. One that fails is told and
/// missed: what needs it fails by name later.
pub fn mounts() {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let tight = plain | MsFlags::MS_NOEXEC;
    for (kind, target, flags, data) in [
        (
            "devpts",
            "/dev/pts",
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            "ptmxmode=666,mode=620,gid=5",
        ),
        ("tmpfs", "/dev/shm", plain, "mode=1777"),
        ("tmpfs", "/tmp", plain, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", tight, "nsdelegate"),
        ("bpf", "/sys/fs/bpf", tight, "mode=700"),
    ] {
        if target.starts_with("/dev/") {
            // devtmpfs begins empty; a folder that is there already is fine.
            let _ = fs::create_dir(target);
        }
        if let Err(error) = mount(Some(kind), target, Some(kind), flags, Some(data)) {
            warn(&format!("mount {target}: {error}"));
        }
    }
    for controller in ["cpu", "memory", "pids", "io"] {
        let _ = write("/sys/fs/cgroup/cgroup.subtree_control", &format!("+{controller}"));
    }
    // The sockets below are for root, each by its own mode.
    for folder in ["/run/bascule/etc", "/run/bascule/log"] {
        let _ = fs::create_dir_all(folder);
    }
}

/// Kernel settings, each with its reason.
pub fn kernel_settings() {
    for (path, value) in [
        // A service must not hide its traces, nor read kernel addresses.
        ("/proc/sys/kernel/kptr_restrict", "1"),
        ("/proc/sys/kernel/dmesg_restrict", "1"),
        ("/proc/sys/fs/protected_hardlinks", "1"),
        ("/proc/sys/fs/protected_symlinks", "1"),
        ("/proc/sys/fs/protected_fifos", "1"),
        ("/proc/sys/fs/protected_regular", "2"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "1"),
    ] {
        if let Err(error) = write(path, value) {
            warn(&format!("set {path}: {error}"));
        }
    }
}

fn write(path: &str, value: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Settles which configuration this boot runs with: that of the state partition, else the one on
/// the ESP, which is copied to a state partition that has none. Returns it as it is understood.
pub fn configuration(state_is_good: bool, esp: Option<&str>) -> Config {
    let on_state = Path::new(config::PATH);
    let mut text = None;
    if on_state.exists() {
        match config::read(on_state) {
            Ok(read) => text = Some(read),
            Err(why) => warn(&why),
        }
    }
    if text.is_none()
        && let Some(read) = esp.and_then(read_from_esp)
    {
        if state_is_good && !on_state.exists() {
            match store(on_state, &read) {
                Ok(()) => say("config: copied from the ESP"),
                Err(error) => warn(&format!("copy the config to {}: {error}", config::PATH)),
            }
        }
        text = Some(read);
    }
    let text = text.unwrap_or_default();
    if let Err(error) = write_private(Path::new(config::RUNNING), &text) {
        warn(&format!("write {}: {error}", config::RUNNING));
    }
    let (config, problems) = Config::parse(&text);
    for problem in &problems {
        warn(problem);
    }
    config
}

fn read_from_esp(device: &str) -> Option<String> {
    fs::create_dir_all(ESP).ok()?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = mount(Some(device), ESP, Some("vfat"), flags, Some("utf8")) {
        warn(&format!("mount the ESP {device}: {error}"));
        return None;
    }
    let path = Path::new(ESP).join(ESP_CONFIG);
    let text =
        if path.exists() { config::read(&path).map_err(|why| warn(&why)).ok() } else { None };
    if let Err(error) = umount(ESP) {
        warn(&format!("unmount the ESP: {error}"));
    }
    text
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Writes a file that must be whole or absent after a power cut: a new file, flushed, renamed, and
/// its folder flushed.
///
/// # Errors
/// The system's.
pub fn store(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let fresh = path.with_extension("new");
    write_private(&fresh, text)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)?;
    fs::File::open(folder)?.sync_all()
}
