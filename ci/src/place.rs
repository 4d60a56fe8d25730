//! Where things lie: the repository, its build output, the cache shared by clones.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ci/ has a parent").to_path_buf()
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or `target` in the root.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Downloads and tools that outlive one clone: `BASCULE_CACHE`, or `~/.cache/bascule`.
pub fn cache() -> PathBuf {
    if let Some(dir) = env::var_os("BASCULE_CACHE") {
        return root().join(dir);
    }
    let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/bascule")
}

/// Test keys. Made once per clone, never committed, never for production.
pub fn keys() -> PathBuf {
    target().join("keys")
}

/// Built releases, one folder each.
pub fn images() -> PathBuf {
    target().join("images")
}

/// Statically linked programs for the device.
pub fn device_binaries() -> PathBuf {
    target().join("device-binaries")
}

/// Full output of quiet steps.
pub fn logs() -> PathBuf {
    target().join("logs")
}

/// Cargo's home, whose path must not end up in a binary.
pub fn cargo_home() -> PathBuf {
    match env::var_os("CARGO_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from).join(".cargo"),
    }
}
