//! Who this machine is: host name, machine-id, SSH host keys.

use crate::console::warn;
use crate::setup::store;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

const SSH_FOLDER: &str = "/var/lib/bascule/ssh";
const SSH_KEY: &str = "ssh_host_ed25519_key";
const MACHINE_ID: &str = "/var/lib/bascule/machine-id";

/// Sets the host name and writes the files that `/etc` points at.
pub fn settle(hostname: Option<&str>) {
    let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
    let id = machine_id(&uuid, Path::new(MACHINE_ID));
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
fn machine_id(uuid: &str, file: &Path) -> String {
    let plain: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let real =
        plain.len() == 32 && plain.chars().any(|c| c != '0') && plain.chars().any(|c| c != 'f');
    if real {
        return derive(&plain.to_lowercase());
    }
    let kept = fs::read_to_string(file).unwrap_or_default();
    if is_machine_id(kept.trim()) {
        return kept.trim().into();
    }
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let fresh = derive(random.trim());
    set_aside(file);
    if let Err(error) = store(file, &fresh) {
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

/// A folder where a file belongs cannot be replaced by one; nothing of it is removed.
fn set_aside(path: &Path) {
    if path.is_dir()
        && let Err(error) = fs::rename(path, path.with_extension("broken"))
    {
        warn(&format!("set {} aside: {error}", path.display()));
    }
}

/// Makes the SSH host key when there is no whole one. A whole one is never replaced.
pub fn host_key() {
    host_key_in(Path::new(SSH_FOLDER));
}

fn host_key_in(folder: &Path) {
    let key = folder.join(SSH_KEY);
    if is_whole(&key) {
        return;
    }
    set_aside(&key);
    if let Err(why) = make_host_key(folder, &key) {
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

fn make_host_key(folder: &Path, key: &Path) -> Result<(), String> {
    let told = |e: std::io::Error| e.to_string();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(told)?;
    let fresh = folder.join(format!("{SSH_KEY}.new"));
    let fresh_public = folder.join(format!("{SSH_KEY}.new.pub"));
    for leftover in [&fresh, &fresh_public] {
        // What a power cut left.
        let _ = fs::remove_file(leftover);
    }
    let status = Command::new("/usr/bin/ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&fresh)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(told)?;
    if !status.success() {
        return Err(format!("ssh-keygen: {status}"));
    }
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(told)?;
    for half in [&fresh, &fresh_public] {
        fs::File::open(half).and_then(|file| file.sync_all()).map_err(told)?;
    }
    fs::rename(&fresh_public, folder.join(format!("{SSH_KEY}.pub"))).map_err(told)?;
    fs::rename(&fresh, key).map_err(told)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("identity-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// ST-6: whatever a power cut or a tool left in its place, the machine-id is a valid one, is
    /// kept, and a valid one is not touched.
    #[test]
    fn a_machine_id_that_is_none_is_made_anew_and_kept() {
        let folder = folder("machine-id");
        let file = folder.join("machine-id");
        for broken in ["", "\n", "uninitialized\n", "4c4c4544004d36108052b4c04f4e333", "\0\0\0"] {
            fs::write(&file, broken).unwrap();
            let made = machine_id("", &file);
            assert!(is_machine_id(&made), "{broken:?}: {made}");
            assert_eq!(fs::read_to_string(&file).unwrap(), made, "{broken:?}");
            assert_eq!(machine_id("00000000-0000-0000-0000-000000000000", &file), made);
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fs::write(file.join("inside"), "somebody's").unwrap();
        let made = machine_id("", &file);
        assert_eq!(machine_id("", &file), made, "kept");
        assert_eq!(
            fs::read_to_string(folder.join("machine-id.broken/inside")).unwrap(),
            "somebody's"
        );
        assert_eq!(names(&folder), ["machine-id", "machine-id.broken"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    /// ST-6: cut soon after the first boot: keys of 0 bytes or of half their length are made anew,
    /// whole ones stay as they are, byte for byte.
    #[test]
    fn a_host_key_is_made_anew_only_when_it_is_not_whole() {
        let folder = folder("host-key").join("ssh");
        let key = folder.join(SSH_KEY);
        let read = || fs::read(&key).unwrap();
        let whole = || {
            host_key_in(&folder);
            assert!(is_whole(&key));
            let mode = fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(names(&folder), [SSH_KEY, "ssh_host_ed25519_key.pub"]);
            read()
        };
        let first = whole();
        assert_eq!(whole(), first, "a whole one is never replaced");
        fs::write(folder.join("ssh_host_ed25519_key.pub"), "").unwrap();
        assert_eq!(whole(), first, "sshd reads the public half out of the private one");
        let mut seen = vec![first.clone()];
        for length in [0, 1, first.len() / 2, first.len() - 60] {
            fs::write(&key, &first[..length]).unwrap();
            // What the cut left beside it.
            fs::write(folder.join("ssh_host_ed25519_key.new"), &first[..length]).unwrap();
            let made = whole();
            assert!(!seen.contains(&made), "{length}");
            seen.push(made);
        }
        fs::write(&key, vec![0; first.len()]).unwrap();
        whole();
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }

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
