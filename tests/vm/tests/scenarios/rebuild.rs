//! Two builds in two folders give the same image, byte for byte, and stay within their sizes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::artifacts::{self, Built};

/// What a slot image may take, in bytes.
const SLOT_MAX: u64 = 250_000_000;
/// What a full download may take, in bytes.
const DOWNLOAD_MAX: u64 = 110_000_000;
/// What the form of a container image may add to the slot's frames, in bytes.
const FORM_MAX: u64 = 1024;

#[test]
fn a_second_build_gives_the_same_digest() -> Result<()> {
    let first = artifacts::release("v1")?;
    let folder = artifacts::work_dir().join("rebuild");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    // A cache of its own, with nothing in it but the packages: no frame is taken over.
    let cache = folder.join("cache");
    fs::create_dir_all(&cache)?;
    symlink(downloads()?, cache.join("packages"))?;
    let second = Built { name: "v1".to_owned(), dir: folder.join("v1") };
    build(&second, &cache)?;

    for name in ["slot.img", "recovery.efi", "loader.efi", "oci/index.json", "build.json"] {
        let same = fs::read(first.dir.join(name))? == fs::read(second.dir.join(name))?;
        assert!(same, "{name} of the second build differs");
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn slot_download_and_form_stay_within_their_sizes() -> Result<()> {
    let release = artifacts::release("v1")?;
    let facts: Value = serde_json::from_slice(&fs::read(release.dir.join("build.json"))?)?;
    for (name, most) in
        [("slot_size", SLOT_MAX), ("layer_size", DOWNLOAD_MAX), ("form_overhead", FORM_MAX)]
    {
        let size = facts[name].as_u64().with_context(|| format!("build.json without {name}"))?;
        assert!(size <= most, "{name} is {size}, more than {most}");
    }
    assert_eq!(facts["slot_size"].as_u64(), Some(fs::metadata(release.slot())?.len()));
    Ok(())
}

/// Where `cargo xtask images` has put the packages.
fn downloads() -> Result<PathBuf> {
    let cache = match std::env::var_os("BASCULE_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => {
            Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(".cache/bascule")
        }
    };
    Ok(cache.join("packages"))
}

/// Builds release `v1` anew, as `cargo xtask images` does.
fn build(target: &Built, cache: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = artifacts::target_dir();
    let mut builder = Command::new(artifacts::host_program("image-builder")?);
    builder.current_dir(&root).env("BASCULE_CACHE", cache);
    builder.args(["build", "tests/images/v1.toml", "--zstd-level", "3"]);
    builder.arg("--binaries").arg(made.join("device-binaries"));
    builder.arg("--loader").arg(made.join("images/loader/loader.efi"));
    builder.arg("--key").arg(artifacts::key("update.key")?);
    builder.arg("--sb-key").arg(artifacts::key("sb.key")?);
    builder.arg("--sb-cert").arg(artifacts::key("sb.crt")?);
    let output = builder.arg("--out").arg(&target.dir).output().context("start image-builder")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
