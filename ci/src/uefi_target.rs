//! Builds the UEFI loader, also where the Rust toolchain has no UEFI target.
//!
//! Three ways, the first that fits: the target is installed; `rustup target add` installs it; or
//! the standard library is built from source, Debian's `rust-src` of the very version of rustc.
//! The sysroot is never written: the sources lie in the cache, and cargo is told where.

pub mod archive;
mod pinned;
mod stubs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{place, step};
use archive::Wanted;

const TARGET: &str = "x86_64-unknown-uefi";
/// Suites that can hold a `rust-src` of our version, the likeliest first.
const SUITES: &[&str] = &["trixie-backports", "trixie", "testing", "unstable"];

/// Builds `kernel/loader` of the repository `repo` and puts it into the folder `out` as
/// `loader.efi`, whose path is returned. The same sources give the same bytes in any folder.
///
/// # Errors
/// The sources of the standard library cannot be had, or the build fails.
pub fn build_loader(repo: &Path, out: &Path) -> Result<PathBuf> {
    let built = build(repo, "loader")?;
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let wanted = out.join("loader.efi");
    fs::copy(&built, &wanted)
        .with_context(|| format!("copy {} to {}", built.display(), wanted.display()))?;
    Ok(wanted)
}

/// Runs the tests of `kernel/loader`: those of its pure part, and those that boot a machine.
///
/// # Errors
/// Loader, payload or stubs cannot be had, or a test fails.
pub fn test_loader(repo: &Path) -> Result<()> {
    let stubs = place::target().join("loader/stubs");
    stubs::ensure(repo, &stubs)?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(repo.join("kernel/loader"))
        .args(["test", "--locked", "--features", "ovmf", "--no-fail-fast", "--target-dir"])
        .arg(place::target().join("loader"))
        .env("BASCULE_LOADER", build(repo, "loader")?)
        .env("BASCULE_PAYLOAD", build(repo, "payload")?)
        .env("BASCULE_STUBS", stubs)
        .env("BASCULE_KERNEL", stubs::kernel(repo)?)
        // As many machines as the smallest host has processors: each has a deadline.
        .args(["--", "--test-threads=2"]);
    step::run_shown("tests of the loader", &mut cargo)
}

/// Builds one program of the loader's workspace; the path of what cargo made.
fn build(repo: &Path, program: &str) -> Result<PathBuf> {
    let sysroot = PathBuf::from(rustc(repo, &["--print", "sysroot"])?);
    let library = if has_target(&sysroot) || add_target(repo, &sysroot) {
        None
    } else {
        Some(library_source(repo, &sysroot)?)
    };
    let target_dir = place::target().join("loader");
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(repo.join("kernel/loader"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--package", program])
        .args(["--bin", program, "--target-dir"])
        .arg(&target_dir)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(repo, library.as_deref()));
    if let Some(library) = &library {
        cargo
            .args(["-Zbuild-std=core,alloc,compiler_builtins"])
            .arg("-Zbuild-std-features=compiler-builtins-mem")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    step::run(program, &mut cargo)?;
    Ok(target_dir.join(TARGET).join("release").join(format!("{program}.efi")))
}

/// No path of this machine and no time of this build in the binary.
fn rustflags(repo: &Path, library: Option<&Path>) -> String {
    let mut flags = vec![
        format!("--remap-path-prefix={}=/bascule", repo.display()),
        format!("--remap-path-prefix={}=/cargo", place::cargo_home().display()),
        // The linker writes a hash of the content where a PE has the time of its build.
        "-Clink-arg=/Brepro".to_owned(),
        "-Clink-arg=/DEBUG:NONE".to_owned(),
    ];
    if let Some(library) = library {
        flags.push(format!("--remap-path-prefix={}=/rust/library", library.display()));
    }
    flags.join("\u{1f}")
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

/// Lets rustup install the target. That it cannot is no error: there is another way.
fn add_target(repo: &Path, sysroot: &Path) -> bool {
    let tried = Command::new("rustup")
        .current_dir(repo)
        .args(["target", "add", TARGET])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success()) && has_target(sysroot)
}

/// The folder `library` of the sources of this rustc.
fn library_source(repo: &Path, sysroot: &Path) -> Result<PathBuf> {
    let component = sysroot.join("lib/rustlib/src/rust/library");
    if component.join("Cargo.lock").is_file() {
        return Ok(component);
    }
    let version = rustc_version(repo)?;
    let cached = place::cache().join("rust-src").join(&version);
    let library = cached.join(format!("usr/src/rustc-{version}/library"));
    if !library.join("Cargo.lock").is_file() {
        let found = archive::fetch(
            &Wanted { package: "rust-src", upstream: &version, suites: SUITES, leads_to: None },
            &cached,
        )?;
        if !found {
            bail!(
                "no UEFI target: rustup cannot add {TARGET}, and none of the suites {} has \
                 rust-src {version}; add the target or the component rust-src to the toolchain \
                 by hand",
                SUITES.join(", ")
            )
        }
    }
    if !library.join("Cargo.lock").is_file() {
        bail!("Debian's rust-src {version} holds no {}", library.display());
    }
    Ok(library)
}

fn rustc_version(repo: &Path) -> Result<String> {
    let text = rustc(repo, &["--version"])?;
    let version = text.split(' ').nth(1).with_context(|| format!("read a version in {text:?}"))?;
    Ok(version.to_owned())
}

fn rustc(repo: &Path, args: &[&str]) -> Result<String> {
    let text = step::output(Command::new("rustc").current_dir(repo).args(args))?;
    Ok(text.trim().to_owned())
}
