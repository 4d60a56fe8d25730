//! Running other programs and saying what they said when they fail.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs `command`; its standard output.
///
/// # Errors
/// It cannot be started (the message names the Debian `package` that has it), or it fails.
pub fn output(command: &mut Command, package: &str) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {name} (Debian package {package})"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}: {}",
        output.status,
        one_line(&String::from_utf8_lossy(&output.stderr))
    );
    Ok(output.stdout)
}

/// Runs `command` for its effect.
///
/// # Errors
/// As [`output`].
pub fn quiet(command: &mut Command, package: &str) -> Result<()> {
    output(command, package).map(drop)
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}
