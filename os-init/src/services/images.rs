//! Images of services, on the state partition.
//!
//! ```text
//! /var/lib/bascule/images/sha256-<hex of the manifest's digest>/
//!   root/         what the layers make, whiteouts applied
//!   config.json   the image config, the very bytes (OCI image specification 1.1)
//!   reference     the name that it was pulled by
//! ```
//!
//! The updater alone makes them, of verified bytes; a folder is never changed afterwards, since a
//! service's root is an overlay above `root`.
//!
//! | step | a power cut here leaves |
//! |---|---|
//! | everything is written below `sha256-<hex>.new`, the file system flushed | a `.new` folder, emptied at the next pull |
//! | the folder is renamed, its parent flushed | the `.new` folder or the whole image |
//! | an image that nothing names is renamed to `.new`, then removed | a whole image or a `.new` folder |

use super::file::ServiceFile;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where they lie.
pub const FOLDER: &str = "/var/lib/bascule/images";
/// What the layers make, in an image's folder.
pub const ROOT: &str = "root";
/// The image config, in an image's folder.
pub const CONFIG: &str = "config.json";
/// The name that it was pulled by, in an image's folder.
const REFERENCE: &str = "reference";
/// Largest image config read, in bytes.
const CONFIG_MAX: u64 = 1 << 20;
/// Images that nothing names are kept, the newest ones, up to this number: pulled beforehand.
pub const SPARE: usize = 2;

/// The digest in `registry/repository@sha256:…`, `sha256:` and 64 hexadecimal digits; none where the
/// text is no such reference.
#[must_use]
pub fn digest(reference: &str) -> Option<&str> {
    let (name, digest) = reference.split_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    // What a reference may hold, the updater decides; nothing here needs more than these.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/[]".contains(&byte);
    let whole = hex.len() == 64 && hex.bytes().all(is_hex) && name.contains('/');
    (whole && name.bytes().all(plain)).then_some(digest)
}

/// The folder of all images.
#[derive(Debug, Clone)]
pub struct Images(PathBuf);

impl Images {
    /// The one at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the image of this reference lies, if it is there.
    ///
    /// # Errors
    /// It is no reference by digest.
    pub fn place(&self, reference: &str) -> Result<PathBuf, String> {
        let digest = digest(reference).ok_or_else(|| format!("{reference}: names no digest"))?;
        Ok(self.0.join(digest.replace(':', "-")))
    }

    /// Whether the image is there, whole.
    #[must_use]
    pub fn has(&self, reference: &str) -> bool {
        self.place(reference).is_ok_and(|place| place.join(ROOT).is_dir())
    }

    /// Makes the image the newest one: somebody is about to use it.
    pub fn touch(&self, reference: &str) {
        let place = self.place(reference).unwrap_or_default();
        // What fails here only makes it older than it could be.
        let _ = File::open(place).and_then(|it| it.set_modified(std::time::SystemTime::now()));
    }

    /// An empty folder in which an image is made; what earlier attempts have left is removed, as far as
    /// that can be done. For one caller at a time.
    ///
    /// # Errors
    /// The system's, or no reference by digest.
    pub fn begin(&self, reference: &str) -> io::Result<PathBuf> {
        let place = self.place(reference).map_err(io::Error::other)?;
        fs::create_dir_all(&self.0)?;
        let fresh = unfinished(&place);
        for (path, _) in self.entries()?.into_iter().filter(|(path, _)| is_unfinished(path)) {
            // Another one's is tried again the next time.
            fs::remove_dir_all(&path).or_else(|error| match path == fresh {
                true => Err(error),
                false => Ok(()),
            })?;
        }
        fs::create_dir_all(fresh.join(ROOT))?;
        Ok(fresh)
    }

    /// Makes what lies in the folder of [`Self::begin`] the image: durable, then visible.
    ///
    /// # Errors
    /// The system's; there is no image then.
    pub fn commit(&self, reference: &str, config: &[u8]) -> io::Result<()> {
        let place = self.place(reference).map_err(io::Error::other)?;
        let fresh = unfinished(&place);
        fs::write(fresh.join(CONFIG), config)?;
        fs::write(fresh.join(REFERENCE), format!("{reference}\n"))?;
        let folder = File::open(&self.0)?;
        // Thousands of files: one flush of the file system instead of one for each.
        nix::unistd::syncfs(&folder)?;
        fs::rename(fresh, place)?;
        folder.sync_all()
    }

    /// Removes what is not in `kept`, but for the [`SPARE`] newest; how many were removed.
    ///
    /// # Errors
    /// The system's; what was not removed is tried again the next time.
    pub fn prune(&self, kept: &BTreeSet<String>) -> io::Result<usize> {
        let kept: BTreeSet<PathBuf> = kept.iter().filter_map(|it| self.place(it).ok()).collect();
        let mut others: Vec<_> = self
            .entries()?
            .into_iter()
            .filter(|(path, _)| !kept.contains(path) && !is_unfinished(path))
            .collect();
        others.sort_by_key(|(_, made)| std::cmp::Reverse(*made));
        let unwanted = others.into_iter().skip(SPARE);
        let mut removed = 0;
        for (path, _) in unwanted {
            let away = unfinished(&path);
            fs::rename(&path, &away)?;
            fs::remove_dir_all(away)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Folders and when they were made.
    fn entries(&self) -> io::Result<Vec<(PathBuf, std::time::SystemTime)>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let dated = entries.flatten().map(|entry| {
            let made = entry.metadata().and_then(|it| it.modified());
            (entry.path(), made.unwrap_or(std::time::UNIX_EPOCH))
        });
        Ok(dated.collect())
    }

    /// What a service of this file runs, by its file and its image's config.
    ///
    /// # Errors
    /// A message: its image is not there or cannot be used.
    pub fn process(&self, file: &ServiceFile) -> Result<Process, String> {
        let Some(reference) = &file.image else {
            return Process::of(file, Config::default(), None);
        };
        let place = self.place(reference)?;
        let path = place.join(CONFIG);
        let told = |why: String| format!("read {}: {why}", path.display());
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|it| it.take(CONFIG_MAX).read_to_end(&mut text))
            .map_err(|error| told(error.to_string()))?;
        Process::read(file, &text, Some(&place.join(ROOT))).map_err(told)
    }
}

fn unfinished(place: &Path) -> PathBuf {
    place.with_extension("new")
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "new")
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    config: Option<Config>,
}

/// What an image says of how it is run; `null` is how some tools write "nothing".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// What is started in a container, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment, `NAME=value`; later ones count.
    pub env: Vec<String>,
    /// Where it starts.
    pub folder: String,
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// What its root is made of; the OS itself where there is none.
    pub root: Option<PathBuf>,
}

impl Process {
    /// What a service of this file runs, by the bytes of an image's config and the image's root.
    ///
    /// # Errors
    /// The config cannot be used: why.
    pub fn read(file: &ServiceFile, config: &[u8], root: Option<&Path>) -> Result<Self, String> {
        let image: Image = serde_json::from_slice(config).map_err(|error| error.to_string())?;
        Self::of(file, image.config.unwrap_or_default(), root)
    }

    fn of(file: &ServiceFile, image: Config, root: Option<&Path>) -> Result<Self, String> {
        let args = match file.command.as_slice() {
            [] => {
                let arguments = file.args.clone().or(image.cmd);
                image.entrypoint.into_iter().chain(arguments).flatten().collect()
            }
            own => own.to_vec(),
        };
        if args.is_empty() {
            return Err("its image names no program; `command` of its file can".into());
        }
        let (user, group) = match (file.user, image.user.as_deref().unwrap_or_default()) {
            (Some(user), _) => (user, user),
            (None, "") => (0, 0),
            (None, named) => identity(named, root)?,
        };
        let mut env = image.env.unwrap_or_default();
        env.extend(file.env.iter().map(|(key, value)| format!("{key}={value}")));
        let folder = image.working_dir.filter(|it| it.starts_with('/'));
        let folder = folder.unwrap_or_else(|| "/".into());
        Ok(Self { args, env, folder, user, group, root: root.map(Path::to_owned) })
    }
}

/// User and group of `USER[:GROUP]`, each a number or a name of the image's own files.
fn identity(text: &str, root: Option<&Path>) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let lookup = |file: &str, name: &str, field: usize| -> Option<u32> {
        let text = read_inside(root?, file).ok()?;
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|line| line.first() == Some(&name))?.get(field)?.parse().ok()
    };
    let unknown = |name: &str| format!("its image runs as `{name}`, which the image does not know");
    let number = user.parse().ok().or_else(|| lookup("etc/passwd", user, 2));
    let number = number.ok_or_else(|| unknown(user))?;
    let group = match group {
        Some(group) => group
            .parse()
            .ok()
            .or_else(|| lookup("etc/group", group, 2))
            .ok_or_else(|| unknown(group))?,
        None => lookup("etc/passwd", user, 3).unwrap_or(0),
    };
    Ok((number, group))
}

/// A small file of an image. No link is followed: it would be taken from the machine's own root.
fn read_inside(root: &Path, file: &str) -> io::Result<String> {
    let path = root.join(file);
    let parent = path.parent().unwrap_or(root);
    if fs::symlink_metadata(parent)?.is_symlink() || !fs::symlink_metadata(&path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    File::open(path)?.take(CONFIG_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(digit: char) -> String {
        format!("registry:5000/web@sha256:{}", String::from(digit).repeat(64))
    }

    fn store(name: &str) -> Images {
        let path = std::env::temp_dir().join(format!("images-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Images::at(path)
    }

    fn file(rest: &str) -> ServiceFile {
        let image = reference('a');
        let head = format!("format = 1\nname = \"web\"\nimage = \"{image}\"\n");
        ServiceFile::parse(&format!("{head}{rest}")).unwrap()
    }

    #[test]
    fn only_a_digest_names_an_image() {
        let whole = reference('a');
        assert_eq!(digest(&whole), whole.split_once('@').map(|(_, it)| it));
        let upper = whole.replace('a', "A");
        for bad in [
            "registry/web:latest",
            "registry/web@sha256:12",
            &whole.replace('/', ""),
            &whole.replace("sha256", "sha512"),
            &upper,
            &whole.replace("web", "w\"b"),
            &whole.replace("web", "w\nb"),
        ] {
            assert_eq!(digest(bad), None, "{bad}");
        }
        assert!(store("none").place("registry/web:latest").is_err());
    }

    #[test]
    fn an_image_is_there_whole_or_not_at_all() {
        let images = store("whole");
        let image = reference('a');
        assert!(!images.has(&image));
        let fresh = images.begin(&image).unwrap();
        fs::write(fresh.join(ROOT).join("half"), "x").unwrap();
        assert!(!images.has(&image), "not before it is committed");
        // As after a power cut: nothing of the first attempt is in the second.
        let fresh = images.begin(&image).unwrap();
        assert!(!fresh.join(ROOT).join("half").exists());
        fs::write(fresh.join(ROOT).join("whole"), "x").unwrap();
        images.commit(&image, b"{}").unwrap();
        assert!(images.has(&image) && !fresh.exists());
        let place = images.place(&image).unwrap();
        assert!(place.join(ROOT).join("whole").exists());
        assert_eq!(fs::read_to_string(place.join(REFERENCE)).unwrap(), format!("{image}\n"));
        fs::remove_dir_all(&images.0).unwrap();
    }

    #[test]
    fn what_nothing_names_is_removed_but_for_the_newest() {
        let images = store("prune");
        for (digit, made) in [('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', 5)] {
            images.begin(&reference(digit)).unwrap();
            images.commit(&reference(digit), b"{}").unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(made);
            let place = images.place(&reference(digit)).unwrap();
            File::open(place).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(images.prune(&BTreeSet::from([reference('b'), reference('f')])).unwrap(), 2);
        let left = ['a', 'b', 'c', 'd', 'e'].map(|digit| images.has(&reference(digit)));
        assert_eq!(left, [false, true, false, true, true]);
        fs::remove_dir_all(&images.0).unwrap();
    }

    #[test]
    fn a_file_says_more_than_its_image() {
        let images = store("process");
        let fresh = images.begin(&reference('a')).unwrap();
        fs::create_dir(fresh.join(ROOT).join("etc")).unwrap();
        let etc = |name: &str| fresh.join(ROOT).join("etc").join(name);
        fs::write(etc("passwd"), "root:x:0:0::/:/sh\nweb:x:33:44::/:/sh\n").unwrap();
        fs::write(etc("group"), "data:x:55:\n").unwrap();
        let config = r#"{"config":{"Entrypoint":["/run"],"Cmd":["-v"],"Env":["A=1","B=1"],
            "User":"web:data","WorkingDir":"/srv"}}"#;
        images.commit(&reference('a'), config.as_bytes()).unwrap();
        let process = images.process(&file("")).unwrap();
        assert_eq!(process.args, ["/run", "-v"]);
        assert_eq!(process.folder, "/srv");
        assert_eq!((process.user, process.group), (33, 55));
        assert_eq!(process.root, Some(images.place(&reference('a')).unwrap().join(ROOT)));
        let process =
            images.process(&file("command = [\"/x\"]\nuser = 7\nenv = { B = \"2\" }")).unwrap();
        assert_eq!((process.args, process.user), (vec!["/x".to_owned()], 7));
        assert_eq!(process.env, ["A=1", "B=1", "B=2"]);
        let process = images.process(&file("args = [\"-q\"]")).unwrap();
        assert_eq!(process.args, ["/run", "-q"]);
        fs::remove_dir_all(&images.0).unwrap();
    }

    #[test]
    fn a_config_that_cannot_be_used_says_why() {
        let images = store("config");
        let said = |config: &str| {
            fs::remove_dir_all(&images.0).ok();
            images.begin(&reference('a')).unwrap();
            images.commit(&reference('a'), config.as_bytes()).unwrap();
            images.process(&file("")).unwrap_err()
        };
        assert!(said("{}").contains("names no program"));
        assert!(said("[").contains("config.json"));
        let stranger = r#"{"config":{"Cmd":["/x"],"User":"nobody-here"}}"#;
        assert!(said(stranger).contains("`nobody-here`"));
        fs::remove_dir_all(&images.0).unwrap();
        assert!(images.process(&file("")).unwrap_err().contains("No such file"));
    }

    /// `etc` of the image may be a link to the machine's own.
    #[test]
    fn no_link_of_an_image_leads_out_of_it() {
        let images = store("links");
        let fresh = images.begin(&reference('a')).unwrap();
        std::os::unix::fs::symlink("/etc", fresh.join(ROOT).join("etc")).unwrap();
        let config = r#"{"config":{"Cmd":["/x"],"User":"daemon"}}"#;
        images.commit(&reference('a'), config.as_bytes()).unwrap();
        assert!(images.process(&file("")).unwrap_err().contains("`daemon`"));
        fs::remove_dir_all(&images.0).unwrap();
    }
}
