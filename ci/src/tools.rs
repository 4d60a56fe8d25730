//! Programs that people use on our images and that no stable Debian has, or whose package would
//! push out what the host runs (`containerd` pushes out Docker's): taken from testing, unpacked
//! into the cache, run by their own C library. Nothing is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::place;
use crate::uefi_target::archive::{self, Wanted};

/// Packages, and the programs that are taken of each; and the libraries they need.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("cosign", &["cosign"]),
    ("oras", &["oras"]),
    ("crane", &["crane"]),
    ("containerd", &["containerd", "ctr"]),
];
const LIBRARIES: &[&str] = &["libc6"];
const SUITES: &[&str] = &["testing"];

/// A folder with a starter for each program, made once.
///
/// # Errors
/// The archive has one of them no more, or cannot be reached.
pub fn ensure() -> Result<PathBuf> {
    let folder = place::cache().join("tools/testing");
    let starters = folder.join("bin");
    fs::create_dir_all(&starters).with_context(|| format!("create {}", starters.display()))?;
    let packages = PROGRAMS.iter().map(|(package, _)| package);
    for package in LIBRARIES.iter().chain(packages) {
        let unpacked = folder.join(package);
        if unpacked.exists() {
            continue;
        }
        let wanted = Wanted { package, upstream: "", suites: SUITES, leads_to: None };
        if !archive::fetch(&wanted, &unpacked)? {
            bail!("{} has no {package}: state another suite in ci/src/tools.rs", SUITES.join(", "));
        }
    }
    for (package, programs) in PROGRAMS {
        for program in *programs {
            let binary = folder.join(package).join("usr/bin").join(program);
            starter(&folder, &binary, &starters.join(program))?;
        }
    }
    Ok(starters)
}

fn starter(folder: &Path, binary: &Path, path: &Path) -> Result<()> {
    let libraries = folder.join("libc6/usr/lib/x86_64-linux-gnu");
    let text = format!(
        "#!/bin/sh\nexec {}/ld-linux-x86-64.so.2 --library-path {} {} \"$@\"\n",
        libraries.display(),
        libraries.display(),
        binary.display(),
    );
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} a program", path.display()))
}
