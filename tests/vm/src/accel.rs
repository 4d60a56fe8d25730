//! KVM or emulation: decided once by a boot that really happens.
//!
//! `/dev/kvm` being there, and QEMU staying up, prove nothing: some hosts run neither OVMF nor a
//! stock kernel under it. Only output of a guest counts.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::artifacts;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// Bound of the probe boot. Under KVM the firmware needs a second or two.
const PROBE: Duration = Duration::from_secs(20);

/// What machines of this clone use; probed at the first call and kept in a file.
///
/// # Errors
/// The file cannot be written.
pub fn chosen() -> Result<Accel> {
    static CHOSEN: OnceLock<Result<Accel, String>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| decide().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn decide() -> Result<Accel> {
    let dir = artifacts::work_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let lock_path = dir.join("accel.lock");
    let lock =
        File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    lock.lock().context("lock the probe of KVM")?;
    let answer = dir.join("accel");
    match fs::read_to_string(&answer).unwrap_or_default().trim() {
        "kvm" => return Ok(Accel::Kvm),
        "tcg" => return Ok(Accel::Tcg),
        _ => {}
    }
    // Nothing to boot yet: undecided, so nothing is kept.
    let Ok(release) = artifacts::release("v1") else {
        return Ok(Accel::Tcg);
    };
    let found = if probe(&dir, &release.disk()) { Accel::Kvm } else { Accel::Tcg };
    let word = if found == Accel::Kvm { "kvm\n" } else { "tcg\n" };
    fs::write(&answer, word).with_context(|| format!("write {}", answer.display()))?;
    Ok(found)
}

/// Boots the first release under KVM and waits for a line of its kernel.
fn probe(dir: &Path, disk: &Path) -> bool {
    let usable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !usable {
        return false;
    }
    let serial = dir.join("accel-serial.log");
    // Of an earlier probe.
    let _ = fs::remove_file(&serial);
    let Ok(mut child) = probe_command(disk, &serial).spawn() else {
        return false;
    };
    let begun = Instant::now();
    let mut spoke = false;
    while !spoke && begun.elapsed() < PROBE {
        thread::sleep(Duration::from_millis(250));
        let said = fs::read(&serial).unwrap_or_default();
        spoke = String::from_utf8_lossy(&said).contains("Linux version");
        if !spoke && !matches!(child.try_wait(), Ok(None)) {
            break;
        }
    }
    // Already gone in the bad cases.
    let _ = child.kill();
    let _ = child.wait();
    spoke
}

fn probe_command(disk: &Path, serial: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-machine", "q35", "-m", "1024"]);
    command.args(["-accel", "kvm", "-cpu", "host", "-snapshot"]);
    command
        .args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
    command.args(["-drive", "if=pflash,format=raw,file=/usr/share/OVMF/OVMF_VARS_4M.fd"]);
    command.args(["-drive", &format!("if=virtio,format=qcow2,file={}", disk.display())]);
    command.args(["-serial", &format!("file:{}", serial.display())]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
