//! Reading the files of the built-in services.

use super::file::ServiceFile;
use crate::console::warn;
use std::path::Path;

/// Where they lie.
pub const FOLDER: &str = "/usr/share/bascule/services";

/// The built-in service `name`.
///
/// # Errors
/// A message, when the file cannot be read or is not valid.
pub fn one(name: &str) -> Result<ServiceFile, String> {
    read(&Path::new(FOLDER).join(format!("{name}.toml")))
}

/// All of them. One broken file costs one service; the health gate then names what is missing.
///
/// # Errors
/// A message, when the folder cannot be read.
pub fn all() -> Result<Vec<ServiceFile>, String> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(FOLDER).map_err(|e| format!("read service files in {FOLDER}: {e}"))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        match read(&path) {
            Ok(file) => files.push(file),
            Err(why) => warn(&format!("{why}; left out")),
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<ServiceFile, String> {
    let told = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| told(e.to_string()))?;
    ServiceFile::parse(&text).map_err(|e| told(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let why = read(Path::new("/nowhere/a.toml")).unwrap_err();
        assert!(why.starts_with("/nowhere/a.toml: "), "{why}");
    }
}
