//! Folders and files that the services' mounts expect to find.

use super::file::{MountEntry, ServiceFile};
use crate::config::Config;
use crate::console::warn;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

/// The image's user systemd-network.
const NETWORK_USER: u32 = 998;
/// The time service's configuration; the service is not started without it.
const CHRONY: &str = "/run/bascule/time/chrony.conf";
/// NTP's port (RFC 5905).
const NTP_PORT: u16 = 123;

/// Folder, mode, owner. Those below `/var` are on the state partition when there is one.
const FOLDERS: [(&str, u32, u32); 10] = [
    (super::file::SOCKET_FOLDER, 0o700, 0),
    ("/run/bascule/etc", 0o755, 0),
    ("/run/bascule/log", 0o700, 0),
    ("/run/bascule/time", 0o755, 0),
    ("/run/bascule/update", 0o700, 0),
    ("/run/systemd/netif", 0o755, NETWORK_USER),
    ("/var/lib/bascule/time", 0o700, 0),
    ("/var/lib/bascule/home", 0o700, 0),
    (super::images::FOLDER, 0o700, 0),
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
    // The operator's own: whatever lies there instead is no reason to start nothing.
    if let Err(error) = fs::create_dir_all(super::operator::FOLDER) {
        warn(&format!("make {}: {error}", super::operator::FOLDER));
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
    chrony(&config.time.servers).map_or(Ok(()), |text| replace(CHRONY, &text))
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
/// None without a server: chronyd then ends at once, with "nothing to do".
fn chrony(servers: &[String]) -> Option<String> {
    let mut text = String::from(
        "driftfile /var/lib/bascule/time/drift\nmakestep 1.0 3\nrtcsync\ncmdport 0\n\
         bindcmdaddress /\npidfile /\n",
    );
    let mut any = false;
    for server in servers {
        let (name, port) = with_port(server);
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b".-:".contains(&b);
        if !name.is_empty() && name.bytes().all(is_name) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "server {name} port {port} iburst");
            any = true;
        }
    }
    any.then_some(text)
}

/// A time server's name or address, and its port: `name`, `name:port`, `2001:db8::1`,
/// `[2001:db8::1]:port`. What is no port stays in the name, which chrony then cannot find.
fn with_port(server: &str) -> (&str, u16) {
    let split = server.rsplit_once(':').and_then(|(name, port)| {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = bare.or_else(|| (!name.contains(':')).then_some(name))?;
        Some((name, port.parse().ok()?))
    });
    split.unwrap_or((server, NTP_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_cannot_smuggle_in_a_directive() {
        let text = chrony(&["good.example".into(), "bad\nallow all".into(), "x y".into()]).unwrap();
        assert!(text.contains("server good.example port 123 iburst\n"));
        assert!(!text.contains("allow") && !text.contains("x y"));
        assert_eq!(chrony(&[]), None);
        assert_eq!(chrony(&["bad\nallow all".into()]), None);
    }

    #[test]
    fn a_server_may_have_a_port() {
        assert_eq!(with_port("ntp.example"), ("ntp.example", 123));
        assert_eq!(with_port("10.0.0.1:1123"), ("10.0.0.1", 1123));
        assert_eq!(with_port("2001:db8::1"), ("2001:db8::1", 123));
        assert_eq!(with_port("[2001:db8::1]:1123"), ("2001:db8::1", 1123));
        assert_eq!(with_port("ntp.example:x"), ("ntp.example:x", 123));
    }
}
