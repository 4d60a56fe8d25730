//! All services of this machine: the built-in ones, and the operator's beside them.

use super::file::{Invalid, ServiceFile};
use super::graph::{self, Graph};
use super::images::Images;
use super::operator::Folder;
use super::upgrade::{self, Upgrade};
use super::{built_in, images, operator};
use crate::boot_facts::BootFacts;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where all that defines the services lies.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The operator's service files.
    pub folder: Folder,
    /// The images.
    pub images: Images,
    /// The release of the OS that runs; 0 where it is not known.
    pub release: u64,
}

impl Sources {
    /// Those of this machine.
    #[must_use]
    pub fn of_machine() -> Self {
        Self {
            folder: Folder::at(operator::FOLDER),
            images: Images::at(images::FOLDER),
            release: BootFacts::load().map_or(0, |facts| facts.release),
        }
    }
}

/// What is not there, so that a service is not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The path of the host that it requires.
    Path(String),
    /// Its image.
    Image(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "nothing to do: there is no {path}"),
            Self::Image(image) => write!(
                f,
                "its image is not on this machine; `osctl service pull {image}`, then start it"
            ),
        }
    }
}

/// One service that may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What its file says; `image` is the one that it runs by, which an operator may have chosen.
    pub file: Arc<ServiceFile>,
    /// The image that the file itself names.
    pub own_image: Option<String>,
    /// The choice of an image, in force or not.
    pub upgrade: Option<Upgrade>,
    /// Why a choice is not in force.
    pub set_aside: Option<String>,
    /// Whether it came with the OS.
    pub built_in: bool,
    /// Whether it is started at boot.
    pub enabled: bool,
    /// What it requires and is not there.
    pub missing: Option<Missing>,
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

impl Definition {
    fn new(file: ServiceFile, built_in: bool, sources: &Sources) -> Self {
        let mut made = Self {
            own_image: file.image.clone(),
            file: Arc::new(file),
            upgrade: None,
            set_aside: None,
            built_in,
            enabled: true,
            missing: None,
        };
        made.enabled = made.is_gated() || sources.folder.is_enabled(&made.file.name);
        match sources.folder.upgrade(&made.file.name) {
            Ok(Some(upgrade)) => made.choose(upgrade, sources),
            Ok(None) => {}
            Err(why) => made.set_aside = Some(format!("the choice of its image {why}")),
        }
        made.look(sources);
        made
    }

    /// Takes the operator's choice, if it stands over what is there.
    fn choose(&mut self, upgrade: Upgrade, sources: &Sources) {
        let over = upgrade::over(&self.file, self.built_in, sources.release);
        if upgrade.over != over {
            let of = if upgrade.over.is_empty() { "another root" } else { &upgrade.over };
            self.set_aside = Some(format!("{} was chosen over {of}", words(&upgrade.image)));
        } else if self.built_in && !upgrade.image.is_empty() && !sources.images.has(&upgrade.image)
        {
            self.set_aside = Some(format!("{} is not on this machine", upgrade.image));
        } else {
            self.run_by(&upgrade.image);
        }
        self.upgrade = Some(upgrade);
    }

    /// Runs it by `image`; empty: by what its file says.
    fn run_by(&mut self, image: &str) {
        let image = Some(image.to_owned()).filter(|it| !it.is_empty());
        self.file = Arc::new(self.file.with_image(image.or(self.own_image.clone())));
    }

    /// The same service by what its own file says.
    #[must_use]
    pub fn by_its_own(&self, why: String) -> Self {
        let mut own = self.clone();
        own.run_by("");
        own.set_aside = Some(why);
        own
    }

    fn look(&mut self, sources: &Sources) {
        let path = self.file.requires_path.clone().filter(|path| !Path::new(path).exists());
        let image = self.file.image.clone().filter(|image| !sources.images.has(image));
        self.missing = path.map(Missing::Path).or(image.map(Missing::Image));
    }

    /// What it runs by, in the words of a choice: empty for what its file says.
    #[must_use]
    pub fn chosen(&self) -> &str {
        let chosen = self.file.image.as_deref().unwrap_or_default();
        if self.file.image == self.own_image { "" } else { chosen }
    }
}

/// An image for people.
fn words(image: &str) -> &str {
    if image.is_empty() { "its own root" } else { image }
}

impl Definitions {
    /// Reads all files.
    ///
    /// # Errors
    /// A message, when the built-in services cannot be read or do not fit.
    pub fn load(sources: &Sources) -> Result<Self, String> {
        Self::with(built_in::all()?, sources)
    }

    /// Adds the operator's files to the built-in services.
    ///
    /// # Errors
    /// A message, when those do not fit among themselves.
    pub fn with(built_in: Vec<ServiceFile>, sources: &Sources) -> Result<Self, String> {
        let (mut added, mut left_out) = (Vec::new(), Vec::new());
        match sources.folder.all() {
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
        let mut made = Self::of(built_in, added, sources)?;
        made.left_out.extend(left_out);
        Ok(made)
    }

    /// The built-in services alone, all enabled, because the folder of the others cannot be read.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn without(built_in: Vec<ServiceFile>, why: &str) -> Result<Self, String> {
        // On no disk at all: a state partition that does not answer is not asked again.
        let nowhere = Sources {
            folder: Folder::at("/run/bascule/none"),
            images: Images::at("/run/bascule/none"),
            release: 0,
        };
        let mut made = Self::of(built_in, Vec::new(), &nowhere)?;
        made.left_out.push(("*".into(), format!("read {}: {why}", operator::FOLDER)));
        Ok(made)
    }

    fn of(
        built_in: Vec<ServiceFile>,
        added: Vec<ServiceFile>,
        sources: &Sources,
    ) -> Result<Self, String> {
        let own: Vec<String> = built_in.iter().map(|file| file.name.clone()).collect();
        let Graph { ordered, refused } =
            graph::arrange(built_in, added).map_err(|e| format!("order the services: {e}"))?;
        let services = ordered.into_iter().map(|file| {
            let built_in = own.contains(&file.name);
            Definition::new(file, built_in, sources)
        });
        let left_out = refused.into_iter().map(|(name, why)| (name, why.to_string()));
        Ok(Self { services: services.collect(), left_out: left_out.collect() })
    }

    /// Has `name` run by `image` (empty: by what its file says), whatever was chosen.
    pub fn run_by(&mut self, name: &str, image: &str, sources: &Sources) {
        if let Some(it) = self.services.iter_mut().find(|it| it.file.name == name) {
            it.run_by(image);
            it.set_aside = None;
            it.look(sources);
        }
    }

    /// All images that something names: what runs, what ran before, what the files say. `None` where
    /// a file cannot be read: it may name any.
    #[must_use]
    pub fn images(&self) -> Option<BTreeSet<String>> {
        let unread = self.services.iter().any(|it| it.set_aside.is_some() && it.upgrade.is_none());
        if unread || !self.left_out.is_empty() {
            return None;
        }
        let mut named = BTreeSet::new();
        for it in &self.services {
            named.extend(it.file.image.clone());
            named.extend(it.own_image.clone());
            if let Some(upgrade) = &it.upgrade {
                named.extend([upgrade.image.clone(), upgrade.previous.clone()]);
            }
        }
        Some(named)
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

    fn sources(path: &Path) -> Sources {
        // What an earlier run may have left.
        let _ = std::fs::remove_dir_all(path);
        let images = Images::at(path.join("images"));
        Sources { folder: Folder::at(path), images, release: 7 }
    }

    fn image(digit: char) -> String {
        format!("registry/web@sha256:{}", String::from(digit).repeat(64))
    }

    /// A built-in `time` and an operator's `web`, as they are with these choices.
    fn chosen(sources: &Sources) -> (Definition, Definition) {
        let built_in = vec![ServiceFile::parse(&file("time", "gate = false")).unwrap()];
        let all = Definitions::with(built_in, sources).unwrap();
        (all.get("time").unwrap().clone(), all.get("web").unwrap().clone())
    }

    #[test]
    fn a_newer_release_and_a_newer_file_set_a_choice_aside() {
        let path = std::env::temp_dir().join(format!("choices-{}", std::process::id()));
        let mut sources = sources(&path);
        let own = format!("image = \"{}\"", image('a'));
        sources.folder.put("web", &file("web", &own)).unwrap();
        for digit in ['a', 'b'] {
            sources.images.begin(&image(digit)).unwrap();
            sources.images.commit(&image(digit), b"{}").unwrap();
        }
        let choose = |name: &str, over: &str| {
            let upgrade = Upgrade::new(&image('b'), "", over.to_owned());
            sources.folder.set_upgrade(name, &upgrade).unwrap();
        };
        choose("time", "release 7");
        choose("web", &image('a'));
        let (time, web) = chosen(&sources);
        assert_eq!((time.chosen(), web.chosen()), (&*image('b'), &*image('b')));
        assert_eq!((&time.set_aside, &web.set_aside), (&None, &None));
        assert_eq!(web.own_image, Some(image('a')));

        sources.release = 8;
        let newer = format!("image = \"{}\"", image('c'));
        sources.folder.put("web", &file("web", &newer)).unwrap();
        let (time, web) = chosen(&sources);
        assert_eq!((time.chosen(), time.file.image.as_deref()), ("", None));
        assert!(time.set_aside.unwrap().contains("was chosen over release 7"));
        assert_eq!(web.file.image, Some(image('c')));
        assert_eq!(web.missing, Some(Missing::Image(image('c'))));
        assert!(web.set_aside.unwrap().contains(&image('a')));
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_built_in_service_runs_without_the_image_that_was_chosen() {
        let path = std::env::temp_dir().join(format!("lost-{}", std::process::id()));
        let sources = sources(&path);
        sources.folder.put("web", &file("web", "")).unwrap();
        for (name, over) in [("time", "release 7"), ("web", "")] {
            let upgrade = Upgrade::new(&image('b'), "", over.into());
            sources.folder.set_upgrade(name, &upgrade).unwrap();
        }
        let (time, web) = chosen(&sources);
        assert_eq!((time.file.image.as_deref(), time.missing), (None, None));
        assert!(time.set_aside.unwrap().ends_with("is not on this machine"));
        assert_eq!(web.missing, Some(Missing::Image(image('b'))), "an operator's says so");
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn every_image_that_something_names_is_kept() {
        let path = std::env::temp_dir().join(format!("named-{}", std::process::id()));
        let sources = sources(&path);
        sources.folder.put("web", &file("web", &format!("image = \"{}\"", image('a')))).unwrap();
        let upgrade = Upgrade::new(&image('b'), &image('c'), image('a'));
        sources.folder.set_upgrade("web", &upgrade).unwrap();
        sources.folder.set_enabled("web", false).unwrap();
        let named = || Definitions::with(Vec::new(), &sources).unwrap().images();
        let wanted = BTreeSet::from(['a', 'b', 'c'].map(image));
        assert_eq!(named(), Some(wanted));
        std::fs::write(path.join("time.image"), "format = 9").unwrap();
        assert!(named().is_some(), "nobody's");
        std::fs::write(path.join("web.image"), "format = 9").unwrap();
        assert_eq!(named(), None);
        std::fs::write(path.join("bad.toml"), "x").unwrap();
        assert_eq!(named(), None);
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_operators_files_stand_beside_the_built_in_ones() {
        let path = std::env::temp_dir().join(format!("definitions-{}", std::process::id()));
        let sources = sources(&path);
        let folder = &sources.folder;
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
        let all = Definitions::with(built_in, &sources).unwrap();
        std::fs::remove_dir_all(&path).unwrap();

        let is = |name: &str| all.get(name).map(|it| (it.built_in, it.enabled, it.is_gated()));
        assert_eq!(is("network"), Some((true, true, true)), "the gate needs it");
        assert_eq!(is("time"), Some((true, false, false)));
        assert_eq!(is("web"), Some((false, true, false)));
        assert_eq!(is("off"), Some((false, false, false)));
        let missing = Some(Missing::Path("/nowhere/at/all".into()));
        assert_eq!(all.get("idle").unwrap().missing, missing);
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
