//! From sources to disks that boot: device programs, loader, keys, releases of `tests/images`.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stamp::{self, Inputs};
use crate::{keys, parallel, place, setup, step, uefi_target};

const DEVICE_TARGET: &str = "x86_64-unknown-linux-gnu";
/// Big enough for ESP, record, two slots and a state partition of some GiB; sparse.
const DISK_SIZE: &str = "8G";
/// Tests and demo want speed; a published release takes a higher level.
const ZSTD_LEVEL: &str = "3";

/// What a test machine is told on its first boot. The address leads to the registry of the test.
const TEST_CONFIG: &str = "\
hostname = \"bascule-test\"
ssh_keys = [\"SSH_KEY\"]

[update]
source = \"10.0.2.100:5000/bascule/os:stable\"
plain_http = true
policy = \"off\"
";

/// Builds the named releases, or all.
///
/// # Errors
/// Any build fails, or a name is unknown.
pub fn run(names: &[&str]) -> Result<()> {
    setup::run()?;
    let all = releases()?;
    let chosen: Vec<String> = if names.is_empty() {
        all
    } else {
        for name in names {
            if !all.iter().any(|known| known == name) {
                bail!("no release {name} in tests/images, there are: {}", all.join(" "));
            }
        }
        names.iter().map(|&name| name.to_owned()).collect()
    };
    build(&chosen)
}

/// Builds everything that the releases `names` need, and them.
///
/// # Errors
/// Any build fails.
pub fn build(names: &[String]) -> Result<()> {
    keys::ensure()?;
    host_programs()?;
    device_programs()?;
    let loader = uefi_target::build_loader(&place::root(), &place::images().join("loader"))?;
    let config = test_config()?;
    // The first alone: it downloads what all of them need.
    let Some((first, others)) = names.split_first() else { return Ok(()) };
    release(first, &loader, &config)?;
    parallel::each(others, |name| release(name, &loader, &config))
}

/// Names of the releases: the files of `tests/images`.
pub fn releases() -> Result<Vec<String>> {
    let folder = place::root().join("tests/images");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.extension().is_some_and(|it| it == "toml") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// `image-builder` and what else runs on the host. Cargo.toml says which of it is optimised.
pub fn host_programs() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(place::root());
    cargo.args(["build", "--locked", "-p", "image-builder", "--target-dir"]);
    step::run("image-builder", cargo.arg(place::target()))
}

fn device_programs() -> Result<()> {
    let target = place::target();
    let mut cargo = Command::new("cargo");
    cargo.current_dir(place::root());
    cargo.args(["build", "--profile", "device", "--locked", "--target", DEVICE_TARGET]);
    cargo.args(["-p", "os-init", "-p", "updater", "-p", "osctl", "--target-dir"]).arg(&target);
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", device_rustflags().join("\u{1f}"));
    let c_flags = prefixes()
        .iter()
        .map(|(from, to)| format!("-ffile-prefix-map={from}={to}"))
        .collect::<Vec<_>>()
        .join(" ");
    cargo.env(format!("CFLAGS_{}", DEVICE_TARGET.replace('-', "_")), c_flags);
    step::run("device programs", &mut cargo)?;

    let built = target.join(DEVICE_TARGET).join("device");
    let wanted = place::device_binaries();
    fs::create_dir_all(&wanted).with_context(|| format!("create {}", wanted.display()))?;
    for program in programs_in(&built)? {
        let name = program.file_name().unwrap_or_default();
        fs::copy(&program, wanted.join(name))
            .with_context(|| format!("copy {}", program.display()))?;
    }
    Ok(())
}

fn device_rustflags() -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(prefixes().iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
    flags
}

/// Paths of this machine that must not end up in a program: two clones give the same bytes.
fn prefixes() -> Vec<(String, &'static str)> {
    vec![
        (place::root().display().to_string(), "/bascule"),
        (place::target().display().to_string(), "/bascule/target"),
        (place::cargo_home().display().to_string(), "/cargo"),
    ]
}

fn programs_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut programs = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let meta = entry.metadata().context("look at a built program")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_program = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
        if is_program && !name.trim_end_matches(EXE_SUFFIX).contains('.') {
            programs.push(entry.path());
        }
    }
    programs.sort();
    Ok(programs)
}

fn test_config() -> Result<PathBuf> {
    let public = place::keys().join("ssh.pub");
    let key = fs::read_to_string(&public).with_context(|| format!("read {}", public.display()))?;
    let path = place::images().join("test-config.toml");
    fs::create_dir_all(place::images()).context("create target/images")?;
    fs::write(&path, TEST_CONFIG.replace("SSH_KEY", key.trim()))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn release(name: &str, loader: &Path, config: &Path) -> Result<()> {
    let root = place::root();
    let spec = root.join("tests/images").join(format!("{name}.toml"));
    let out = place::images().join(name);
    let builder = place::target().join("debug/image-builder");
    let stamp_file = out.join("inputs.sha256");
    let mut inputs = Inputs::default().word(DISK_SIZE).word(ZSTD_LEVEL).path(&spec)?;
    for path in [
        root.join("tests/images/files"),
        root.join("image-builder/specs"),
        root.join("kernel/cmdline"),
        root.join("kernel/modules"),
        root.join("os-init/services"),
        place::device_binaries(),
        place::keys(),
        builder.clone(),
        loader.to_path_buf(),
        config.to_path_buf(),
    ] {
        inputs = inputs.path(&path)?;
    }
    let hash = inputs.hash();
    if stamp::is_current(&stamp_file, &hash) {
        return Ok(());
    }
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("empty {}", out.display()))?;
    }
    let key = |file: &str| place::keys().join(file);
    let mut build = Command::new(&builder);
    build.current_dir(&root).arg("build").arg(&spec);
    build.arg("--binaries").arg(place::device_binaries()).arg("--loader").arg(loader);
    build.arg("--key").arg(key("update.key"));
    build.arg("--sb-key").arg(key("sb.key")).arg("--sb-cert").arg(key("sb.crt"));
    build.args(["--zstd-level", ZSTD_LEVEL, "--out"]).arg(&out);
    step::run(&format!("release {name}"), &mut build)?;

    let mut disk = Command::new(&builder);
    disk.current_dir(&root).arg("disk").arg(&out).arg("--config").arg(config);
    disk.args(["--size", DISK_SIZE, "--format", "qcow2", "--out"]).arg(out.join("disk.qcow2"));
    step::run(&format!("disk of {name}"), &mut disk)?;
    stamp::keep(&stamp_file, &hash)
}
