//! Who this machine is: host name, machine-id, SSH host keys.

use crate::console::warn;
use crate::setup::store;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

const SSH_FOLDER: &str = "/var/lib/bascule/ssh";
const SSH_KEY: &str = "/var/lib/bascule/ssh/ssh_host_ed25519_key";
const MACHINE_ID: &str = "/var/lib/bascule/machine-id";

/// Sets the host name and writes the files that `/etc` points at.
pub fn settle(hostname: Option<&str>) {
    let id = machine_id();
    let name = hostname.map_or_else(|| format!("bascule-{}", &id[..8]), str::to_string);
    if let Err(error) = nix::unistd::sethostname(&name) {
        warn(&format!("set the host name: {error}"));
    }
    for (path, text) in [
        ("/run/bascule/etc/hostname", format!("{name}\n")),
        ("/run/bascule/etc/machine-id", format!("{id}\n")),
    ] {
        if let Err(error) = fs::write(path, text) {
            warn(&format!("write {path}: {error}"));
        }
    }
}

/// 32 hexadecimal digits, tied to the SMBIOS UUID, so that a clone gets its own; where there is
/// none, random and kept on state.
fn machine_id() -> String {
    let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
    let plain: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let real =
        plain.len() == 32 && plain.chars().any(|c| c != '0') && plain.chars().any(|c| c != 'f');
    if real {
        return derive(&plain.to_lowercase());
    }
    let kept = fs::read_to_string(MACHINE_ID).unwrap_or_default();
    if is_machine_id(kept.trim()) {
        return kept.trim().into();
    }
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let fresh = derive(random.trim());
    if let Err(error) = store(Path::new(MACHINE_ID), &fresh) {
        warn(&format!("keep the machine-id: {error}"));
    }
    fresh
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A machine-id is told to others, an SMBIOS UUID may be a secret: only a hash leaves.
fn derive(from: &str) -> String {
    let hash = Sha256::new().chain_update(b"bascule machine-id\0").chain_update(from).finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the SSH host key when there is no whole one. A whole one is never replaced.
pub fn host_key() {
    if is_whole(Path::new(SSH_KEY)) {
        return;
    }
    if let Err(why) = make_host_key() {
        warn(&format!("make the SSH host key: {why}"));
    }
}

fn is_whole(key: &Path) -> bool {
    let program = Command::new("/usr/bin/ssh-keygen")
        .args(["-y", "-P", "", "-f"])
        .arg(key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    key.exists() && program.is_ok_and(|status| status.success())
}

fn make_host_key() -> Result<(), String> {
    let told = |e: std::io::Error| e.to_string();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(SSH_FOLDER).map_err(told)?;
    let fresh = format!("{SSH_KEY}.new");
    for leftover in [fresh.clone(), format!("{fresh}.pub")] {
        // What a power cut left.
        let _ = fs::remove_file(leftover);
    }
    let status = Command::new("/usr/bin/ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &fresh])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(told)?;
    if !status.success() {
        return Err(format!("ssh-keygen: {status}"));
    }
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(told)?;
    fs::File::open(&fresh).and_then(|file| file.sync_all()).map_err(told)?;
    fs::rename(format!("{fresh}.pub"), format!("{SSH_KEY}.pub")).map_err(told)?;
    fs::rename(&fresh, SSH_KEY).map_err(told)?;
    fs::File::open(SSH_FOLDER).and_then(|folder| folder.sync_all()).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_id_is_stable_and_tells_nothing() {
        let id = derive("4c4c4544004d36108052b4c04f4e3332");
        assert!(is_machine_id(&id));
        assert_eq!(id, derive("4c4c4544004d36108052b4c04f4e3332"));
        assert_ne!(id, derive("4c4c4544004d36108052b4c04f4e3333"));
        for bad in [
            "",
            "uninitialized",
            "4c4c4544004d36108052b4c04f4e333",
            "4C4c4544004d36108052b4c04f4e3332",
        ] {
            assert!(!is_machine_id(bad), "{bad}");
        }
    }
}
