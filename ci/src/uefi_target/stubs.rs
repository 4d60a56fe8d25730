//! What tests of the loader start: a kernel, and the stubs in front of it, from the oldest that
//! anybody may still build an image with, over the one we ship, to the newest there is.
//!
//! All are pinned. What we ship is in the image builder's lock, the rest in the tests' own. Debian
//! keeps only the newest version of a suite: where a pinned one is gone, the archive's successor
//! is taken, by the archive's signature, and a line says so.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::{self, Wanted};
use super::pinned::{self, Pinned};
use crate::place;

const IMAGE_LOCK: &str = "image-builder/specs/cloud.lock";
const TEST_LOCK: &str = "kernel/loader/tests/stubs.lock";
const PACKAGE: &str = "systemd-boot-efi";
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Name in the folder, lock, suite, beginning of the version.
const STUBS: &[(&str, &str, &str, &str)] = &[
    ("252", TEST_LOCK, "bookworm", "252"),
    ("254", TEST_LOCK, "bookworm-backports", "254"),
    ("shipped", IMAGE_LOCK, "trixie", "257"),
    ("newest", TEST_LOCK, "testing", ""),
];
const KERNEL: Wanted = Wanted {
    package: "linux-image-cloud-amd64",
    upstream: "6.12",
    suites: &["trixie"],
    leads_to: Some("linux-image-"),
};

/// Puts each stub into the folder `out` as `<name>.efi`.
///
/// # Errors
/// Neither a pinned package nor its successor can be had.
pub fn ensure(repo: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    for &(name, lock, suite, upstream) in STUBS {
        let found = pinned::read(&repo.join(lock))?
            .into_iter()
            .find(|it| it.name == PACKAGE && it.suite.starts_with(suite))
            .with_context(|| format!("{lock} has no {PACKAGE} of {suite}"))?;
        let wanted = Wanted { package: PACKAGE, upstream, suites: &[suite], leads_to: None };
        let stub = obtain(&found, &wanted, lock)?.join(STUB);
        fs::copy(&stub, out.join(format!("{name}.efi")))
            .with_context(|| format!("copy {}", stub.display()))?;
    }
    Ok(())
}

/// The kernel that images are built with.
///
/// # Errors
/// Neither the pinned package nor its successor can be had, or it holds no kernel.
pub fn kernel(repo: &Path) -> Result<PathBuf> {
    let found = pinned::read(&repo.join(IMAGE_LOCK))?
        .into_iter()
        .find(|it| it.name.starts_with("linux-image-") && it.name != KERNEL.package)
        .with_context(|| format!("{IMAGE_LOCK} has no kernel"))?;
    let boot = obtain(&found, &KERNEL, IMAGE_LOCK)?.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("list {}", boot.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", boot.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("vmlinuz") {
            return Ok(path);
        }
    }
    bail!("no kernel in {}", boot.display())
}

/// A folder with the files of the pinned package, else of its successor in the archive.
fn obtain(pinned: &Pinned, wanted: &Wanted, lock: &str) -> Result<PathBuf> {
    let gone = match pinned.unpacked() {
        Ok(folder) => return Ok(folder),
        Err(error) => error,
    };
    let suites = wanted.suites.join("+");
    println!(
        "{} {} of {lock} cannot be had ({gone:#}); its successor in {suites} is taken, refresh \
         the lock",
        pinned.name, pinned.version
    );
    let name = format!("{suites}-{}-{}", wanted.package, wanted.upstream);
    let folder = place::cache().join("unpacked").join(name);
    if !folder.is_dir() && !archive::fetch(wanted, &folder)? {
        bail!("{suites} has no {} {} any more: change {lock}", wanted.package, wanted.upstream);
    }
    Ok(folder)
}
