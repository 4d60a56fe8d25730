//! Images of services, as a user makes them: a shell, what the service needs, and how it starts.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::artifacts;
use crate::registry::REPOSITORY;
use crate::release::{Image, digest_of};

/// The static shell and its tools (package busybox-static).
pub const BUSYBOX: &str = "/usr/bin/busybox";

/// What goes into an image.
#[derive(Debug, Default)]
pub struct Contents<'a> {
    /// The shell line that it runs when the service file names no program; none: it names none.
    pub shell: &'a str,
    /// Text files: path without a leading slash, and what is in it.
    pub files: Vec<(&'a str, String)>,
    /// Programs: path without a leading slash, and the file that is copied there.
    pub programs: Vec<(&'a str, PathBuf)>,
}

/// Makes an image, signed by the key that machines trust. `name` keeps its files apart.
///
/// # Errors
/// A tool is missing or fails.
pub fn signed(name: &str, contents: &Contents<'_>) -> Result<Image> {
    let mut image = unsigned(name, contents)?;
    image.sign(&artifacts::key("update.key")?)?;
    Ok(image)
}

/// As [`signed`], without a signature.
///
/// # Errors
/// As [`signed`].
pub fn unsigned(name: &str, contents: &Contents<'_>) -> Result<Image> {
    let folder = artifacts::work_dir().join("service-images").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    let root = folder.join("root");
    fill(&root, contents).with_context(|| format!("fill {}", root.display()))?;
    let layer = folder.join("layer.tar.gz");
    let packed = Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-czf"])
        .arg(&layer)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()
        .context("start tar")?;
    ensure!(packed.success(), "tar ended with {packed}");

    let cmd = if contents.shell.is_empty() {
        json!(null)
    } else {
        json!(["/bin/sh", "-c", contents.shell])
    };
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": cmd, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
    .to_string()
    .into_bytes();
    let bytes = fs::read(&layer).with_context(|| format!("read {}", layer.display()))?;
    let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest_of(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar+gzip", &bytes)],
    })
    .to_string()
    .into_bytes();
    Ok(Image { manifest, config, layer, signatures: Vec::new() })
}

/// Builds a program of one C source file for an image, where no package has one that does it.
///
/// # Errors
/// `gcc` fails.
pub fn program(name: &str, source: &str) -> Result<PathBuf> {
    let folder = artifacts::work_dir().join("service-programs");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let (program, text) = (folder.join(name), folder.join(format!("{name}.c")));
    fs::write(&text, source).with_context(|| format!("write {}", text.display()))?;
    let built = Command::new("gcc")
        .args(["-static", "-o"])
        .arg(&program)
        .arg(&text)
        .status()
        .context("start gcc")?;
    ensure!(built.success(), "gcc ended with {built}");
    Ok(program)
}

/// The name under which machines find the image in the registry.
#[must_use]
pub fn reference(image: &Image) -> String {
    format!("{}/{REPOSITORY}@{}", crate::machine::REGISTRY_ADDRESS, image.digest())
}

fn fill(root: &Path, contents: &Contents<'_>) -> Result<()> {
    fs::create_dir_all(root.join("bin"))?;
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("package busybox-static")?;
    for tool in ["sh", "sleep", "touch", "test", "cat", "ls", "httpd"] {
        symlink("busybox", root.join("bin").join(tool))?;
    }
    for (path, text) in &contents.files {
        let path = made(root, path)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    for (path, program) in &contents.programs {
        fs::copy(program, made(root, path)?)
            .with_context(|| format!("copy {}", program.display()))?;
    }
    Ok(())
}

/// A path in the root, its folders made.
fn made(root: &Path, path: &str) -> Result<PathBuf> {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    Ok(path)
}
