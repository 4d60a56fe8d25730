//! The stubs that tests of the loader start kernels with: the oldest that anybody may still
//! build an image with, the one we ship, the newest there is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::{self, Wanted};
use crate::place;

/// Name in the folder, upstream version, suites.
const STUBS: &[(&str, &str, &[&str])] = &[
    ("252", "252", &["bookworm"]),
    ("254", "254", &["bookworm-backports"]),
    ("257", "257", &["trixie"]),
    ("newest", "", &["testing"]),
];
const PATH: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// A folder with each stub as `<name>.efi`, downloaded once.
///
/// # Errors
/// The archive has none of that version any more, or cannot be reached.
pub fn ensure() -> Result<PathBuf> {
    let folder = place::cache().join("stubs");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for &(name, upstream, suites) in STUBS {
        let stub = folder.join(format!("{name}.efi"));
        if !stub.is_file() {
            let wanted = Wanted { package: "systemd-boot-efi", upstream, suites };
            take(&wanted, &folder.join(name), &stub)?;
        }
    }
    Ok(folder)
}

fn take(wanted: &Wanted, unpacked: &Path, stub: &Path) -> Result<()> {
    if unpacked.exists() {
        fs::remove_dir_all(unpacked).with_context(|| format!("remove {}", unpacked.display()))?;
    }
    if !archive::fetch(wanted, unpacked)? {
        bail!(
            "{} has no {} {}: state another version in ci/src/uefi_target/stubs.rs",
            wanted.suites.join(", "),
            wanted.package,
            wanted.upstream
        );
    }
    let found = unpacked.join(PATH);
    fs::rename(&found, stub)
        .with_context(|| format!("move {} to {}", found.display(), stub.display()))?;
    fs::remove_dir_all(unpacked).with_context(|| format!("remove {}", unpacked.display()))
}
