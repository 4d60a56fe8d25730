//! Builds the UEFI loader, also where the Rust toolchain has no UEFI target.
//!
//! Three ways, the first that fits: the target is installed; `rustup target add` installs it; or
//! the standard library is built from source, Debian's `rust-src` of the very version of rustc.
//! The sysroot is never written: the sources lie in the cache, and cargo is told where.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{place, step};

const TARGET: &str = "x86_64-unknown-uefi";
/// Suites that can hold a `rust-src` of our version, the likeliest first.
const SUITES: &[&str] = &["trixie-backports", "trixie", "testing", "unstable"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Builds `kernel/loader` of the repository `repo` and puts it into the folder `out` as
/// `loader.efi`, whose path is returned. The same sources give the same bytes in any folder.
///
/// # Errors
/// The sources of the standard library cannot be had, or the build fails.
pub fn build_loader(repo: &Path, out: &Path) -> Result<PathBuf> {
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
        .args([
            "build",
            "--release",
            "--locked",
            "--bin",
            "loader",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .env_remove("RUSTFLAGS")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rustflags(repo, library.as_deref()),
        );
    if let Some(library) = &library {
        cargo
            .args(["-Zbuild-std=core,alloc,compiler_builtins"])
            .arg("-Zbuild-std-features=compiler-builtins-mem")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    step::run("loader", &mut cargo)?;
    let built = target_dir.join(TARGET).join("release/loader.efi");
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let wanted = out.join("loader.efi");
    fs::copy(&built, &wanted)
        .with_context(|| format!("copy {} to {}", built.display(), wanted.display()))?;
    Ok(wanted)
}

/// No path of this machine and no time of this build in the binary.
fn rustflags(repo: &Path, library: Option<&Path>) -> String {
    let mut flags = vec![
        format!("--remap-path-prefix={}=/bascule", repo.display()),
        format!(
            "--remap-path-prefix={}=/cargo",
            place::cargo_home().display()
        ),
        // The linker writes a hash of the content where a PE has the time of its build.
        "-Clink-arg=/Brepro".to_owned(),
        "-Clink-arg=/DEBUG:NONE".to_owned(),
    ];
    if let Some(library) = library {
        flags.push(format!(
            "--remap-path-prefix={}=/rust/library",
            library.display()
        ));
    }
    flags.join("\u{1f}")
}

fn has_target(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .is_dir()
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
        fetch(&version, &cached)?;
    }
    if !library.join("Cargo.lock").is_file() {
        bail!("Debian's rust-src {version} holds no {}", library.display());
    }
    Ok(library)
}

fn rustc_version(repo: &Path) -> Result<String> {
    let text = rustc(repo, &["--version"])?;
    let version = text
        .split(' ')
        .nth(1)
        .with_context(|| format!("read a version in {text:?}"))?;
    Ok(version.to_owned())
}

fn rustc(repo: &Path, args: &[&str]) -> Result<String> {
    let text = step::output(Command::new("rustc").current_dir(repo).args(args))?;
    Ok(text.trim().to_owned())
}

/// Downloads and unpacks `rust-src` of `version` to `wanted`, by an apt that knows nothing of
/// the machine's packages and changes nothing of them. Complete or absent, never in between.
fn fetch(version: &str, wanted: &Path) -> Result<()> {
    let work = wanted.with_extension("part");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    for folder in ["lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(work.join(folder))
            .with_context(|| format!("create {folder} in {}", work.display()))?;
    }
    let config = private_apt(&work)?;
    let sites = sites()?;
    for suite in SUITES {
        let lines: Vec<String> = sites.iter().map(|site| source_line(site, suite)).collect();
        fs::write(work.join("sources.list"), lines.concat()).context("write sources.list")?;
        let apt = |program: &str| {
            let mut command = Command::new(program);
            command.current_dir(&work).env("APT_CONFIG", &config);
            command
        };
        step::run(
            &format!("package list of {suite}"),
            apt("apt-get").arg("update"),
        )?;
        let Some(full) = offered(&mut apt("apt-cache"), version)? else {
            continue;
        };
        let name = format!("rust-src={full}");
        step::run(
            "download rust-src",
            apt("apt-get").args(["download", &name]),
        )?;
        let deb = downloaded(&work)?;
        step::run(
            "unpack rust-src",
            Command::new("dpkg")
                .arg("-x")
                .arg(deb)
                .arg(work.join("root")),
        )?;
        fs::rename(work.join("root"), wanted)
            .with_context(|| format!("move the sources to {}", wanted.display()))?;
        return fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()));
    }
    bail!(
        "no UEFI target: rustup cannot add {TARGET}, and none of the suites {} has rust-src \
         {version}; add the target or the component rust-src to the toolchain by hand",
        SUITES.join(", ")
    )
}

fn private_apt(work: &Path) -> Result<PathBuf> {
    let work_path = work.display();
    fs::write(work.join("status"), "").context("write an empty package status")?;
    let config = work.join("apt.conf");
    let text = format!(
        "Dir::State \"{work_path}\";\n\
         Dir::State::lists \"{work_path}/lists\";\n\
         Dir::State::status \"{work_path}/status\";\n\
         Dir::Cache \"{work_path}/cache\";\n\
         Dir::Etc::SourceList \"{work_path}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n\
         Acquire::Check-Valid-Until \"false\";\n\
         APT::Get::List-Cleanup \"false\";\n\
         APT::Sandbox::User \"{}\";\n",
        env::var("USER").unwrap_or_else(|_| "root".to_owned()),
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    Ok(config)
}

/// The archives this machine's apt takes Debian's main suites from.
fn sites() -> Result<Vec<String>> {
    let format = "$(IDENTIFIER)|$(LABEL)|$(SITE)";
    let text = step::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let mut sites: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Packages|Debian|"))
        .map(str::to_owned)
        .collect();
    sites.sort();
    sites.dedup();
    if sites.is_empty() {
        bail!("apt knows no Debian archive: add one to its sources and run `apt-get update`");
    }
    Ok(sites)
}

fn source_line(site: &str, suite: &str) -> String {
    let options = if Path::new(KEYRING).is_file() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    format!("deb {options}{site} {suite} main\n")
}

/// The full Debian version of `rust-src` whose upstream version is `version`.
fn offered(apt_cache: &mut Command, version: &str) -> Result<Option<String>> {
    let text = step::output(apt_cache.args(["madison", "rust-src"]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|full| full.split(['+', '-', '~']).next() == Some(version))
        .map(str::to_owned))
}

fn downloaded(work: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(work).with_context(|| format!("list {}", work.display()))?;
    for entry in entries {
        let path = entry.context("read the download folder")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    bail!("apt downloaded no package into {}", work.display())
}
