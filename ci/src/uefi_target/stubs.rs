//! What tests of the loader start: a kernel, and the stubs in front of it, from the oldest that
//! anybody may still build an image with, over the one we ship, to the newest there is.

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
const KERNEL: Wanted = Wanted {
    package: "linux-image-cloud-amd64",
    upstream: "6.12",
    suites: &["trixie"],
    leads_to: Some("linux-image-"),
};
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
            let wanted = Wanted { package: "systemd-boot-efi", upstream, suites, leads_to: None };
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

/// The kernel, downloaded once.
///
/// # Errors
/// The archive has none of that version any more, or cannot be reached.
pub fn kernel() -> Result<PathBuf> {
    let unpacked = place::cache().join("test-kernel");
    if let Some(kernel) = kernel_in(&unpacked)? {
        return Ok(kernel);
    }
    if !archive::fetch(&KERNEL, &unpacked)? {
        bail!(
            "{} has no {} {}: state another version in ci/src/uefi_target/stubs.rs",
            KERNEL.suites.join(", "),
            KERNEL.package,
            KERNEL.upstream
        );
    }
    kernel_in(&unpacked)?.with_context(|| format!("find a kernel in {}", unpacked.display()))
}

fn kernel_in(unpacked: &Path) -> Result<Option<PathBuf>> {
    let boot = unpacked.join("boot");
    if !boot.is_dir() {
        return Ok(None);
    }
    let entries = fs::read_dir(&boot).with_context(|| format!("list {}", boot.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", boot.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("vmlinuz") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
