//! Reading the files of the built-in services.

use super::file::{self, ServiceFile};
use crate::console::warn;
use std::path::Path;

/// Where they lie.
const FOLDER: &str = "/usr/share/bascule/services";

/// The built-in service `name`.
///
/// # Errors
/// A message, when the file cannot be read or is not valid.
pub fn one(name: &str) -> Result<ServiceFile, String> {
    read(&Path::new(FOLDER).join(format!("{name}.toml")))
}

/// All that have something to do, in the order in which they start. One broken file costs one
/// service; the health gate then names what is missing.
///
/// # Errors
/// A message, when the folder cannot be read or the services cannot be put in an order.
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
    let ordered = file::order(files).map_err(|e| format!("order the services: {e}"))?;
    Ok(ordered.into_iter().filter(has_something_to_do).collect())
}

fn read(path: &Path) -> Result<ServiceFile, String> {
    let told = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| told(e.to_string()))?;
    ServiceFile::parse(&text).map_err(|e| told(e.to_string()))
}

/// Whether what the service requires is there: the clock's, for one, wants a server.
fn has_something_to_do(file: &ServiceFile) -> bool {
    let Some(path) = file.requires_path.as_deref() else { return true };
    let is_there = Path::new(path).exists();
    if !is_there {
        eprintln!("os-services: {}: not started, there is no {path}", file.name);
    }
    is_there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_required_path_that_is_absent_keeps_a_service_down() {
        let file = |rest: &str| {
            let head = "format = 1\nname = \"a\"\ncommand = [\"/x\"]\n";
            ServiceFile::parse(&format!("{head}{rest}")).unwrap()
        };
        assert!(!has_something_to_do(&file("requires_path = \"/nowhere/at/all\"\n")));
        assert!(has_something_to_do(&file("requires_path = \"/\"\n")));
        assert!(has_something_to_do(&file("")));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let why = read(Path::new("/nowhere/a.toml")).unwrap_err();
        assert!(why.starts_with("/nowhere/a.toml: "), "{why}");
    }
}
