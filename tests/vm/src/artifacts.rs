//! Where the built releases and keys lie. `cargo xtask images` makes them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::registry::SOURCE;

/// Cargo's target folder, as xtask sees it.
pub fn target_dir() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // For people who read the path in a message: without `..` in it.
    let root = here.ancestors().nth(2).unwrap_or(here);
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

/// Folder in which machines keep their disks and logs.
pub fn work_dir() -> PathBuf {
    target_dir().join("vm")
}

/// One built release: the output folder of `image-builder build`.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name in tests/images.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
}

impl Built {
    /// The OCI layout with the image and its signature.
    pub fn layout(&self) -> PathBuf {
        self.dir.join("oci")
    }

    /// The bare slot image.
    pub fn slot(&self) -> PathBuf {
        self.dir.join("slot.img")
    }

    /// A disk with this release in slot A and the test configuration on its ESP.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }
}

/// The built release `name`.
///
/// # Errors
/// It has not been built; the message names the command.
pub fn release(name: &str) -> Result<Built> {
    let dir = target_dir().join("images").join(name);
    if !dir.join("build.json").exists() {
        bail!("release {name} is not in {}: run `cargo xtask images`", dir.display());
    }
    Ok(Built { name: name.to_owned(), dir })
}

/// A new disk with `release` in slot A, for the machine `name`. Its configuration holds that name,
/// the test's SSH key, the registry of the test, and `more`: keys of `[update]`, then other tables.
///
/// # Errors
/// `image-builder disk` fails.
pub fn disk_with(release: &Built, name: &str, more: &str) -> Result<PathBuf> {
    let dir = work_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let (file, disk) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}-disk.qcow2")));
    let public = key("ssh.pub")?;
    let key = fs::read_to_string(&public).with_context(|| format!("read {}", public.display()))?;
    let config = format!(
        "hostname = \"{name}\"\nssh_keys = [\"{}\"]\n[update]\nsource = \"{SOURCE}\"\n\
         plain_http = true\n{more}",
        key.trim()
    );
    fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
    let mut builder = Command::new(host_program("image-builder")?);
    builder.arg("disk").arg(&release.dir).arg("--config").arg(&file);
    builder.args(["--size", "8G", "--format", "qcow2", "--out"]).arg(&disk);
    let output = builder.output().context("start image-builder")?;
    if !output.status.success() {
        bail!("image-builder disk: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(disk)
}

/// A test key made by `cargo xtask images`.
///
/// # Errors
/// It is not there; the message names the command.
pub fn key(name: &str) -> Result<PathBuf> {
    let path = target_dir().join("keys").join(name);
    if !path.exists() {
        bail!("key {} is missing: run `cargo xtask images`", path.display());
    }
    Ok(path)
}

/// A program that `cargo xtask images` built for the host.
///
/// # Errors
/// It is not there; the message names the command.
pub fn host_program(name: &str) -> Result<PathBuf> {
    let path = target_dir().join("debug").join(name);
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask images`", path.display());
    }
    Ok(path)
}

/// A program that `cargo xtask images` built for machines.
///
/// # Errors
/// It is not there; the message names the command.
pub fn device_program(name: &str) -> Result<PathBuf> {
    let path = target_dir().join("device-binaries").join(name);
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask images`", path.display());
    }
    Ok(path)
}

/// A program of another project that people use on our images, put there by `cargo xtask test`.
///
/// # Errors
/// The folder is not stated, or the program is not in it.
pub fn foreign_tool(name: &str) -> Result<PathBuf> {
    let Some(folder) = env::var_os("BASCULE_TOOLS") else {
        bail!("BASCULE_TOOLS is not set: run `cargo xtask test vm`");
    };
    let path = PathBuf::from(folder).join(name);
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask test vm`", path.display());
    }
    Ok(path)
}

/// A program of this crate, built beside the running test or demo.
///
/// # Errors
/// It is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|it| it.exists());
    match found {
        Some(path) => Ok(path),
        None => bail!("program {name} is not beside {}", own.display()),
    }
}
