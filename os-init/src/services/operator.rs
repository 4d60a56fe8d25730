//! The operator's service files: `/var/lib/bascule/services/NAME.toml`, plain files on state.
//!
//! A service whose file lies there is started at every boot, unless an empty `NAME.disabled` lies
//! beside it. Built-in services that may be left out are disabled in the same way. `NAME.image` is
//! another image for it, see [`super::upgrade`].
//!
//! | step | a power cut here leaves |
//! |---|---|
//! | file written beside, flushed, renamed, folder flushed | the old file or the new one, whole |
//! | mark made or removed, folder flushed | the mark or not |
//! | file removed, then its mark and its choice of an image, folder flushed | all, or what is nobody's |

use super::file::{FILE_MAX, Invalid, ServiceFile};
use super::upgrade::Upgrade;
use crate::setup::store;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where they lie.
pub const FOLDER: &str = "/var/lib/bascule/services";
/// More files than this are not read: a folder that something has filled must not fill memory.
pub const FILES_MAX: usize = 256;

/// The folder of the operator's service files.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// One service file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name of the file without `.toml`.
    pub name: String,
    /// What it says, or why it cannot be used.
    pub file: Result<ServiceFile, Invalid>,
}

impl Folder {
    /// The one at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path of a service's file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.toml"))
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.disabled"))
    }

    fn choice(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.image"))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// The folder cannot be read; none is no error.
    pub fn all(&self) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                entry.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned)
            })
            .take(FILES_MAX)
            .collect();
        names.sort_unstable();
        Ok(names.into_iter().map(|name| Found { file: self.one(&name), name }).collect())
    }

    /// The file of one service.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn one(&self, name: &str) -> Result<ServiceFile, Invalid> {
        let text = read(&self.path(name)).map_err(|e| Invalid::Unreadable(e.to_string()))?;
        let file = ServiceFile::parse(&text)?;
        if file.name != name {
            let rule = format!("is `{}`, want the name of the file, `{name}`", file.name);
            return Err(Invalid::Value("name", rule));
        }
        Ok(file)
    }

    /// Puts a service file into the folder, whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn put(&self, name: &str, text: &str) -> io::Result<()> {
        store(&self.path(name), text)
    }

    /// Whether the service is started at boot.
    #[must_use]
    pub fn is_enabled(&self, name: &str) -> bool {
        !self.mark(name).exists()
    }

    /// Says whether the service is started at the next boots.
    ///
    /// # Errors
    /// The system's; it may hold or not.
    pub fn set_enabled(&self, name: &str, enabled: bool) -> io::Result<()> {
        match enabled {
            true => self.gone(&[self.mark(name)]),
            false => store(&self.mark(name), ""),
        }
    }

    /// The image that was chosen for the service, if one was.
    ///
    /// # Errors
    /// Why the choice cannot be used.
    pub fn upgrade(&self, name: &str) -> Result<Option<Upgrade>, Invalid> {
        match read(&self.choice(name)) {
            Ok(text) => Upgrade::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Invalid::Unreadable(error.to_string())),
        }
    }

    /// Chooses an image for the service, whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn set_upgrade(&self, name: &str, upgrade: &Upgrade) -> io::Result<()> {
        store(&self.choice(name), &upgrade.text())
    }

    /// Removes the service's file.
    ///
    /// # Errors
    /// The system's; it may be there still.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.gone(&[self.path(name), self.mark(name), self.choice(name)])
    }

    fn gone(&self, paths: &[PathBuf]) -> io::Result<()> {
        for path in paths {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match File::open(&self.0) {
            Ok(folder) => folder.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// No more than a service file may hold, and one byte that shows what is larger.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::file::named;

    fn folder(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("operator-{name}-{}", std::process::id()));
        // What an earlier run may have left.
        let _ = fs::remove_dir_all(&path);
        Folder::at(path)
    }

    fn text(name: &str) -> String {
        format!("format = 1\nname = \"{name}\"\ncommand = [\"/bin/true\"]\n")
    }

    #[test]
    fn files_come_and_go() {
        let folder = folder("files");
        assert_eq!(folder.all().unwrap(), []);
        assert!(folder.is_enabled("web"));
        folder.set_enabled("web", true).unwrap();
        folder.put("web", &text("web")).unwrap();
        folder.put("web", &text("web")).unwrap();
        folder.set_enabled("web", false).unwrap();
        let found = folder.all().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file.as_ref().unwrap().name, "web");
        assert!(!folder.is_enabled("web"));
        folder.set_enabled("web", true).unwrap();
        assert!(folder.is_enabled("web"));
        folder.set_enabled("web", false).unwrap();
        folder.remove("web").unwrap();
        assert_eq!((folder.all().unwrap(), folder.is_enabled("web")), (Vec::new(), true));
        fs::remove_dir_all(&folder.0).unwrap();
    }

    #[test]
    fn what_lies_there_is_read_with_care() {
        let folder = folder("care");
        folder.put("web", &text("other")).unwrap();
        folder.put("large", &"#".repeat(FILE_MAX + 1)).unwrap();
        fs::create_dir(folder.path("folder")).unwrap();
        fs::write(folder.path("bytes"), [0xff, 0xfe]).unwrap();
        fs::write(folder.0.join("notes.txt"), "x").unwrap();
        let found = folder.all().unwrap();
        let why = |name: &str| {
            let found = found.iter().find(|found| found.name == name).unwrap();
            found.file.as_ref().unwrap_err().to_string()
        };
        assert_eq!(found.len(), 4);
        assert_eq!(why("web"), "`name` is `other`, want the name of the file, `web`");
        assert_eq!(Invalid::TooLarge.to_string(), why("large"));
        assert!(why("folder").starts_with("cannot be read: "), "{}", why("folder"));
        assert!(why("bytes").starts_with("cannot be read: "), "{}", why("bytes"));
        fs::remove_dir_all(&folder.0).unwrap();
    }

    #[test]
    fn a_choice_goes_with_its_service() {
        let folder = folder("choice");
        assert_eq!(folder.upgrade("web"), Ok(None));
        let image = format!("registry/web@sha256:{}", "a".repeat(64));
        let chosen = Upgrade::new(&image, "", "release 7".into());
        folder.set_upgrade("web", &chosen).unwrap();
        assert_eq!(folder.upgrade("web"), Ok(Some(chosen)));
        assert_eq!(folder.all().unwrap(), [], "it is no service file");
        folder.remove("web").unwrap();
        assert_eq!(folder.upgrade("web"), Ok(None));
        fs::write(folder.0.join("web.image"), "format = 9").unwrap();
        assert!(folder.upgrade("web").is_err());
        fs::remove_dir_all(&folder.0).unwrap();
    }

    #[test]
    fn a_name_stays_in_the_folder() {
        for bad in ["", "..", "a/b", "../../etc/shadow", "A", "a.b"] {
            assert!(named(bad).is_err(), "{bad}");
        }
        assert_eq!(named("web-1"), Ok("web-1"));
    }
}
