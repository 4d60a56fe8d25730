//! The spec: what an image is made of, declared.
//!
//! A spec stands alone, or names another by `base` and changes a few things of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What an image is made of. Paths in it are relative to the spec's own folder until
/// [`Spec::read`] has made them whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Which OS this is.
    pub product: String,
    /// `os`.
    pub kind: String,
    /// Architecture, as `uname -m` says.
    pub arch: String,
    /// Release number: grows with every release.
    pub release: u64,
    /// Version for people.
    pub version: String,
    /// Security version: the floor that a machine may never go below.
    pub secver: u32,
    /// Lowest release that may update to this one.
    #[serde(default)]
    pub min_from: u64,
    /// Requirements by name that a machine must know.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Lower bound of the clock on the machine, seconds since 1970.
    pub build_time: u64,
    /// Lock file of `packages`.
    pub lock: PathBuf,
    /// Lock file of `tools`.
    pub tools_lock: PathBuf,
    /// Suites that packages are taken from.
    pub suites: Vec<String>,
    /// Suite that tools are taken from.
    pub tools_suite: String,
    /// Packages wanted on the machine; what they depend on is added.
    pub packages: Vec<String>,
    /// Packages that run here, to build.
    pub tools: Vec<String>,
    /// Packages that are dependencies by name only.
    #[serde(default)]
    pub leave_out: Vec<LeaveOut>,
    /// Paths of packages that are not taken over.
    #[serde(default)]
    pub drop: Vec<Drop>,
    /// Files that are added, or replace what a package holds.
    #[serde(default)]
    pub file: Vec<FileEntry>,
    /// Symbolic links that are added.
    #[serde(default)]
    pub link: Vec<LinkEntry>,
    /// Folders that must exist, empty or not.
    #[serde(default)]
    pub folder: Vec<String>,
    /// Files to read through verity before the root is trusted.
    #[serde(default)]
    pub boot_set: Vec<String>,
    /// Options behind those of `kernel/cmdline`.
    #[serde(default)]
    pub cmdline: Vec<String>,
}

/// Packages not fetched although something depends on them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveOut {
    /// Why.
    pub reason: String,
    /// Names.
    pub packages: Vec<String>,
}

/// Paths not taken over.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    /// Why.
    pub reason: String,
    /// Patterns of paths relative to the root: `*` stays inside a folder, `**` does not.
    pub paths: Vec<String>,
}

/// A file with content from one of two places.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where, absolute.
    pub path: String,
    /// The file it is a copy of.
    pub source: Option<PathBuf>,
    /// The content itself.
    pub content: Option<String>,
    /// Permissions.
    #[serde(default = "readable")]
    pub mode: u32,
}

/// A symbolic link.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// Where, absolute.
    pub path: String,
    /// What it says.
    pub target: String,
}

/// What a spec with a `base` may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Derived {
    base: PathBuf,
    release: Option<u64>,
    version: Option<String>,
    secver: Option<u32>,
    min_from: Option<u64>,
    requires: Option<Vec<String>>,
    arch: Option<String>,
    product: Option<String>,
    kind: Option<String>,
    boot_set: Option<Vec<String>>,
    #[serde(default)]
    cmdline: Vec<String>,
    #[serde(default)]
    drop: Vec<Drop>,
    #[serde(default)]
    file: Vec<FileEntry>,
    #[serde(default)]
    link: Vec<LinkEntry>,
}

fn readable() -> u32 {
    0o644
}

impl Spec {
    /// Reads the spec at `path`, with its base where it has one.
    ///
    /// # Errors
    /// A file is missing or malformed, or a value cannot be used.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("read spec {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let says = || format!("spec {}", path.display());
        let table: toml::Table = toml::from_str(&text).with_context(says)?;
        let spec = if table.contains_key("base") {
            let derived: Derived = toml::from_str(&text).with_context(says)?;
            derived.apply(folder)?
        } else {
            let spec: Self = toml::from_str(&text).with_context(says)?;
            spec.with_whole_paths(folder)
        };
        spec.check().with_context(says)?;
        Ok(spec)
    }

    fn with_whole_paths(mut self, folder: &Path) -> Self {
        self.lock = folder.join(&self.lock);
        self.tools_lock = folder.join(&self.tools_lock);
        self.file.iter_mut().for_each(|file| file.join(folder));
        self
    }

    fn check(&self) -> Result<()> {
        ensure!(self.release > 0, "release must be at least 1");
        let short = |text: &str| (1..=64).contains(&text.len()) && !text.contains(char::is_control);
        for (name, text) in [("product", &self.product), ("version", &self.version)] {
            ensure!(short(text), "{name} must have 1 to 64 plain characters");
        }
        for path in self.file.iter().map(|it| &it.path).chain(self.link.iter().map(|it| &it.path)) {
            if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                bail!("{path:?} must be an absolute path");
            }
        }
        Ok(())
    }
}

impl FileEntry {
    fn join(&mut self, folder: &Path) {
        self.source = self.source.take().map(|source| folder.join(source));
    }

    /// The file's content.
    ///
    /// # Errors
    /// Its source cannot be read, or not one of `source` and `content` is given.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        match (&self.source, &self.content) {
            (Some(source), None) => fs::read(source)
                .with_context(|| format!("read {} for {}", source.display(), self.path)),
            (None, Some(content)) => Ok(content.clone().into_bytes()),
            _ => bail!("file {}: give one of source and content", self.path),
        }
    }
}

impl Derived {
    fn apply(self, folder: &Path) -> Result<Spec> {
        let mut spec = Spec::read(&folder.join(&self.base))?;
        spec.release = self.release.unwrap_or(spec.release);
        spec.version = self.version.unwrap_or(spec.version);
        spec.secver = self.secver.unwrap_or(spec.secver);
        spec.min_from = self.min_from.unwrap_or(spec.min_from);
        spec.requires = self.requires.unwrap_or(spec.requires);
        spec.arch = self.arch.unwrap_or(spec.arch);
        spec.product = self.product.unwrap_or(spec.product);
        spec.kind = self.kind.unwrap_or(spec.kind);
        spec.boot_set = self.boot_set.unwrap_or(spec.boot_set);
        spec.cmdline.extend(self.cmdline);
        spec.drop.extend(self.drop);
        for mut file in self.file {
            file.join(folder);
            spec.file.retain(|known| known.path != file.path);
            spec.file.push(file);
        }
        spec.link.extend(self.link);
        Ok(spec)
    }
}
