//! Folders and files that the services' mounts expect to find.

use super::file::{MountEntry, ServiceFile};
use crate::config::Config;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

/// The image's user systemd-network.
const NETWORK_USER: u32 = 998;

/// Folder, mode, owner. Those below `/var` are on the state partition when there is one.
const FOLDERS: [(&str, u32, u32); 8] = [
    ("/run/bascule/etc", 0o755, 0),
    ("/run/bascule/log", 0o700, 0),
    ("/run/bascule/time", 0o755, 0),
    ("/run/bascule/update", 0o700, 0),
    ("/run/systemd/netif", 0o755, NETWORK_USER),
    ("/var/lib/bascule/time", 0o700, 0),
    ("/var/lib/bascule/home", 0o700, 0),
    ("/var/lib/bascule/update", 0o700, 0),
];

/// Makes every folder and the time service's configuration.
///
/// # Errors
/// The system's, for the first that cannot be made.
pub fn make(config: &Config) -> io::Result<()> {
    for (path, mode, owner) in FOLDERS {
        fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        chown(path, Some(owner), Some(owner))?;
    }
    // Empty until networkd knows better, so that the link in /etc points at something.
    if !Path::new("/run/bascule/etc/resolv.conf").exists() {
        replace("/run/bascule/etc/resolv.conf", "")?;
    }
    for part in ["links", "leases", "lldp"] {
        let path = format!("/run/systemd/netif/{part}");
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&path)?;
        chown(&path, Some(NETWORK_USER), Some(NETWORK_USER))?;
    }
    replace("/run/bascule/time/chrony.conf", &chrony(&config.time.servers))
}

/// The mounts whose sources exist, or that may not be missing: a missing one that is not optional
/// is left in, so that the start fails and says which.
pub fn existing(file: &ServiceFile) -> Vec<MountEntry> {
    file.mounts
        .iter()
        .filter(|m| !m.optional || m.source == "tmpfs" || Path::new(&m.source).exists())
        .cloned()
        .collect()
}

/// Replaces a file in one step for its readers.
///
/// # Errors
/// The system's.
pub fn replace(path: &str, text: &str) -> io::Result<()> {
    let fresh = format!("{path}.new");
    fs::File::create(&fresh)?.write_all(text.as_bytes())?;
    fs::rename(&fresh, path)
}

/// chrony's configuration: step whenever the clock is wrong at the first answers, slew afterwards.
fn chrony(servers: &[String]) -> String {
    let mut text = String::from(
        "driftfile /var/lib/bascule/time/drift\nmakestep 1.0 3\nrtcsync\ncmdport 0\n\
         bindcmdaddress /\npidfile /\n",
    );
    for server in servers {
        if server.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b)) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "server {server} iburst");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_cannot_smuggle_in_a_directive() {
        let text = chrony(&["good.example".into(), "bad\nallow all".into(), "x y".into()]);
        assert!(text.contains("server good.example iburst\n"));
        assert!(!text.contains("allow") && !text.contains("x y"));
    }
}
