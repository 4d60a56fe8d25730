//! All services of this machine: the built-in ones, and the operator's beside them.

use super::built_in;
use super::file::{Invalid, ServiceFile};
use super::graph::{self, Graph};
use super::operator::Folder;
use std::path::Path;
use std::sync::Arc;

/// One service that may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What its file says.
    pub file: Arc<ServiceFile>,
    /// Whether it came with the OS.
    pub built_in: bool,
    /// Whether it is started at boot.
    pub enabled: bool,
    /// The path of the host that it requires and that is not there.
    pub missing: Option<String>,
}

/// All services, and the files that were left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definitions {
    /// In an order in which they may start.
    pub services: Vec<Definition>,
    /// Name and reason.
    pub left_out: Vec<(String, String)>,
}

impl Definition {
    /// Whether the health gate waits for it, so that nobody takes it down for long.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.built_in && self.file.gate.unwrap_or(true)
    }
}

impl Definitions {
    /// Reads all files.
    ///
    /// # Errors
    /// A message, when the built-in services cannot be read or do not fit.
    pub fn load(folder: &Folder) -> Result<Self, String> {
        Self::with(built_in::all()?, folder)
    }

    /// Adds the files in `folder` to the built-in services.
    ///
    /// # Errors
    /// A message, when those do not fit among themselves.
    pub fn with(built_in: Vec<ServiceFile>, folder: &Folder) -> Result<Self, String> {
        let (mut added, mut left_out) = (Vec::new(), Vec::new());
        match folder.all() {
            Ok(found) => {
                for found in found {
                    match found.file {
                        Ok(file) => added.push(file),
                        Err(why) => left_out.push((found.name, why.to_string())),
                    }
                }
            }
            // Without them the machine runs all the same.
            Err(error) => left_out.push(("*".into(), format!("list the service files: {error}"))),
        }
        let mut made = Self::of(built_in, added, |name| folder.is_enabled(name))?;
        made.left_out.extend(left_out);
        Ok(made)
    }

    /// The built-in services alone, all enabled, because the `folder` of the others cannot be read.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn without(built_in: Vec<ServiceFile>, folder: &str, why: &str) -> Result<Self, String> {
        let mut made = Self::of(built_in, Vec::new(), |_| true)?;
        made.left_out.push(("*".into(), format!("read {folder}: {why}")));
        Ok(made)
    }

    fn of(
        built_in: Vec<ServiceFile>,
        added: Vec<ServiceFile>,
        is_enabled: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        let own: Vec<String> = built_in.iter().map(|file| file.name.clone()).collect();
        let Graph { ordered, refused } =
            graph::arrange(built_in, added).map_err(|e| format!("order the services: {e}"))?;
        let services = ordered.into_iter().map(|file| {
            let missing = file.requires_path.clone().filter(|path| !Path::new(path).exists());
            let built_in = own.contains(&file.name);
            let mut made = Definition { file: Arc::new(file), built_in, enabled: true, missing };
            made.enabled = made.is_gated() || is_enabled(&made.file.name);
            made
        });
        let left_out = refused.into_iter().map(|(name, why)| (name, why.to_string()));
        Ok(Self { services: services.collect(), left_out: left_out.collect() })
    }

    /// The service `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.services.iter().find(|it| it.file.name == name)
    }

    /// Why the file of `name` was left out.
    #[must_use]
    pub fn why_left_out(&self, name: &str) -> Option<&str> {
        self.left_out.iter().find(|(it, _)| it == name).map(|(_, why)| why.as_str())
    }
}

/// What would be left out, and why, if the `candidates` took their places among the files in `folder`.
///
/// # Errors
/// A message, when the built-in services do not fit among themselves, or the folder cannot be read.
pub fn refusals(
    built_in: Vec<ServiceFile>,
    folder: &Folder,
    candidates: &[ServiceFile],
) -> Result<Vec<(String, Invalid)>, String> {
    let found = folder.all().map_err(|error| format!("list the service files: {error}"))?;
    // As they were written: a `before` that a candidate no longer has must be nowhere any more.
    let others = found.into_iter().filter_map(|it| it.file.ok());
    let others = others.filter(|file| candidates.iter().all(|it| it.name != file.name));
    let added = others.chain(candidates.iter().cloned()).collect();
    let graph = graph::arrange(built_in, added).map_err(|e| format!("order the services: {e}"))?;
    Ok(graph.refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, rest: &str) -> String {
        format!("format = 1\nname = \"{name}\"\ncommand = [\"/x\"]\n{rest}\n")
    }

    #[test]
    fn the_operators_files_stand_beside_the_built_in_ones() {
        let path = std::env::temp_dir().join(format!("definitions-{}", std::process::id()));
        let folder = Folder::at(&path);
        for (name, rest) in [
            ("web", ""),
            ("off", ""),
            ("lost", "requires = [\"nowhere\"]"),
            ("time", ""),
            ("idle", "requires_path = \"/nowhere/at/all\""),
        ] {
            folder.put(name, &file(name, rest)).unwrap();
        }
        for name in ["off", "network", "time"] {
            folder.set_enabled(name, false).unwrap();
        }
        let built_in = [file("network", ""), file("time", "gate = false")];
        let built_in = built_in.iter().map(|text| ServiceFile::parse(text).unwrap()).collect();
        let all = Definitions::with(built_in, &folder).unwrap();
        std::fs::remove_dir_all(&path).unwrap();

        let is = |name: &str| all.get(name).map(|it| (it.built_in, it.enabled, it.is_gated()));
        assert_eq!(is("network"), Some((true, true, true)), "the gate needs it");
        assert_eq!(is("time"), Some((true, false, false)));
        assert_eq!(is("web"), Some((false, true, false)));
        assert_eq!(is("off"), Some((false, false, false)));
        assert_eq!(all.get("idle").unwrap().missing.as_deref(), Some("/nowhere/at/all"));
        assert_eq!(all.get("lost"), None);
        assert!(all.why_left_out("lost").unwrap().contains("nowhere"));
        assert_eq!(all.why_left_out("time"), Some("two services are named `time`"));
        assert_eq!(all.why_left_out("web"), None);
    }

    #[test]
    fn a_candidate_takes_the_place_of_its_older_self() {
        let path = std::env::temp_dir().join(format!("candidates-{}", std::process::id()));
        let folder = Folder::at(&path);
        folder.put("web", &file("web", "before = [\"log\"]")).unwrap();
        folder.put("log", &file("log", "")).unwrap();
        let asked = |rest: &str| {
            let built_in = vec![ServiceFile::parse(&file("network", "")).unwrap()];
            refusals(built_in, &folder, &[ServiceFile::parse(&file("web", rest)).unwrap()]).unwrap()
        };
        // No cycle with the `before` that it had.
        assert_eq!(asked("after = [\"log\", \"network\"]"), []);
        assert!(matches!(asked("after = [\"web\"]").as_slice(), [(_, Invalid::Cycle(_))]));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
