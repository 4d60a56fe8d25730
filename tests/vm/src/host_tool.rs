//! Stock tools of the host, run to their end.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs a tool and returns what it said, on both of its outputs.
///
/// # Errors
/// It cannot be started, or fails: its words.
pub fn run(name: &str, words: &[&str]) -> Result<String> {
    let output =
        Command::new(name).args(words).output().with_context(|| format!("start {name}"))?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.success(), "{name} {}: {said}", words.join(" "));
    Ok(said)
}

/// A path as an argument.
#[must_use]
pub fn show(path: &Path) -> String {
    path.display().to_string()
}
