//! One layer of an image, unpacked above those below it: a tar of what is added, with whiteouts for
//! what is taken away (OCI image specification 1.1, `layer.md`).
//!
//! Names are looked up as inside the image: no link, and no `..`, leads out of it. Device nodes are
//! passed over, since no service could use them. Extended attributes are not kept.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use tar::{Entry, EntryType};

/// Most files and folders of one image: what more cost in inodes is no service's due.
const ENTRIES_MAX: u64 = 500_000;
/// What a file costs at least, and by what its size grows, in bytes.
const BLOCK: u64 = 4096;
/// Most folders above a file: what is deeper cannot be removed again within a process's open files.
const DEPTH_MAX: usize = 200;
/// Read and written at a time, in bytes.
const PIECE: usize = 64 << 10;
/// What a name begins with that is taken away.
const WHITEOUT: &str = ".wh.";
/// A folder that holds this shows nothing of the layers below.
const OPAQUE: &str = ".wh..wh..opq";

/// Why a layer was not unpacked.
#[derive(Debug)]
pub enum Unfit {
    /// Its bytes are no layer, or lead out of the image.
    Layer(String),
    /// The image is larger than the room there is.
    Room,
    /// It could not be read or written.
    Io(String, io::Error),
}

/// How much more may be unpacked; none by default.
#[derive(Debug, Default)]
pub struct Room {
    bytes: u64,
    entries: u64,
}

impl Room {
    /// For an image of at most so many bytes, in blocks, and so many files and folders.
    #[must_use]
    pub fn of(bytes: u64, entries: u64) -> Room {
        Room { bytes, entries: entries.min(ENTRIES_MAX) }
    }

    /// Holds bytes that are there only for a while.
    ///
    /// # Errors
    /// [`Unfit::Room`].
    pub fn hold(&mut self, bytes: u64) -> Result<(), Unfit> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Unfit::Room)?;
        Ok(())
    }

    /// Gives them back.
    pub fn release(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, bytes: u64) -> Result<(), Unfit> {
        let blocks = bytes.div_ceil(BLOCK).max(1).saturating_mul(BLOCK);
        self.bytes = self.bytes.checked_sub(blocks).ok_or(Unfit::Room)?;
        self.entries = self.entries.checked_sub(1).ok_or(Unfit::Room)?;
        Ok(())
    }
}

/// Unpacks the tar `layer` into `root`.
///
/// # Errors
/// [`Unfit`]; `root` is of no use then.
pub fn unpack(layer: impl Read, root: &Path, room: &mut Room) -> Result<(), Unfit> {
    let on_root = |error| Unfit::Io(root.display().to_string(), error);
    let folder = File::open(root).map_err(on_root)?;
    let depth = root.canonicalize().map_err(on_root)?.components().count();
    let mut unpacking = Unpacking { root: folder.into(), depth, room, made: HashSet::new() };
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().map_err(broken)? {
        unpacking.take(entry.map_err(broken)?)?;
    }
    Ok(())
}

fn broken(error: io::Error) -> Unfit {
    Unfit::Layer(error.to_string())
}

struct Unpacking<'a> {
    root: OwnedFd,
    /// How deep the image's root lies itself.
    depth: usize,
    room: &'a mut Room,
    /// What this layer has made, which its own whiteouts leave alone.
    made: HashSet<PathBuf>,
}

/// A name in a folder that is held open: it stays inside, whatever lies there.
struct Place {
    folder: OwnedFd,
    name: PathBuf,
}

impl Place {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(&self.name)
    }
}

impl Unpacking<'_> {
    fn take<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Unfit> {
        let named = entry.path().map_err(broken)?;
        let path = inside(&named)?;
        let Some(name) = path.file_name() else {
            // The root itself: its rights are the image's.
            return Ok(());
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some(gone) = name.to_str().and_then(|name| name.strip_prefix(WHITEOUT)) {
            return self.white_out(parent, gone, name.to_str() == Some(OPAQUE));
        }
        self.room.take(entry.size())?;
        let place = self.made_place(&path)?;
        make(&mut entry, &place, self).map_err(|why| match why {
            Unfit::Io(_, error) => Unfit::Io(path.display().to_string(), error),
            other => other,
        })?;
        for made in path.ancestors() {
            if !made.as_os_str().is_empty() && !self.made.insert(made.to_owned()) {
                break;
            }
        }
        Ok(())
    }

    /// The place of `path`, whose folders are there.
    fn place(&self, path: &Path) -> Result<Place, Unfit> {
        let name = path.file_name().ok_or_else(|| leads_out(path))?.into();
        let parent = path.parent().unwrap_or(Path::new(""));
        let folder = self.open(parent).map_err(|_| leads_out(path))?;
        let place = Place { folder, name };
        let real = fs::read_link(place.path().parent().unwrap_or(Path::new("/")));
        let real = real.map_err(|error| Unfit::Io(path.display().to_string(), error))?;
        // Links lead deeper than names say.
        if real.components().count().saturating_sub(self.depth) > DEPTH_MAX {
            return Err(Unfit::Layer(format!("{} lies too deep", shown(path))));
        }
        Ok(place)
    }

    /// The same, once they are made where they are not there.
    fn made_place(&mut self, path: &Path) -> Result<Place, Unfit> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.open(parent).is_err() {
            let mut above: Vec<&Path> = parent.ancestors().collect();
            above.reverse();
            for folder in above.into_iter().filter(|it| !it.as_os_str().is_empty()) {
                if self.open(folder).is_ok() {
                    continue;
                }
                let place = self.place(folder)?;
                self.room.take(0)?;
                fs::DirBuilder::new().mode(0o755).create(place.path()).map_err(
                    |error| match error.kind() {
                        io::ErrorKind::AlreadyExists => leads_out(path),
                        _ => Unfit::Io(folder.display().to_string(), error),
                    },
                )?;
            }
        }
        self.place(path)
    }

    /// Opens a folder of the image; links are followed as they would be inside.
    fn open(&self, folder: &Path) -> nix::Result<OwnedFd> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .mode(Mode::empty())
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, folder, how)
    }

    fn white_out(&self, parent: &Path, name: &str, all: bool) -> Result<(), Unfit> {
        let told = |error| Unfit::Io(parent.join(name).display().to_string(), error);
        // A folder that is not there hides nothing.
        let Ok(folder) = self.open(parent) else { return Ok(()) };
        let inside = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        if !all {
            if ["", ".", ".."].contains(&name) {
                return Err(leads_out(&parent.join(name)));
            }
            return self.take_away(&inside.join(name), &parent.join(name)).map_err(told);
        }
        for entry in fs::read_dir(&inside).map_err(told)? {
            let name = entry.map_err(told)?.file_name();
            self.take_away(&inside.join(&name), &parent.join(&name)).map_err(told)?;
        }
        Ok(())
    }

    /// Removes what layers below have put at `path`, `named` in the image.
    fn take_away(&self, path: &Path, named: &Path) -> io::Result<()> {
        let Ok(what) = fs::symlink_metadata(path) else { return Ok(()) };
        match (self.made.contains(named), what.is_dir()) {
            (false, true) => fs::remove_dir_all(path),
            (false, false) => fs::remove_file(path),
            (true, false) => Ok(()),
            (true, true) => {
                for entry in fs::read_dir(path)? {
                    let name = entry?.file_name();
                    self.take_away(&path.join(&name), &named.join(&name))?;
                }
                Ok(())
            }
        }
    }
}

/// A name as it is inside the image: without a root, `.` or, which is refused, `..`.
fn inside(named: &Path) -> Result<PathBuf, Unfit> {
    let mut path = PathBuf::new();
    for part in named.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(leads_out(named)),
        }
    }
    Ok(path)
}

fn leads_out(path: &Path) -> Unfit {
    Unfit::Layer(format!("{} leads out of the image, or into what is no folder", shown(path)))
}

fn shown(path: &Path) -> String {
    let text: String = path.display().to_string().chars().take(200).collect();
    format!("{text:?}")
}

/// Copies a file's data. What cannot be read is the layer's fault, what cannot be written the disk's.
fn copy(entry: &mut impl Read, file: &mut File) -> Result<(), Unfit> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = match entry.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        let data = piece.get(..length).unwrap_or_default();
        file.write_all(data).map_err(|error| Unfit::Io(String::new(), error))?;
    }
}

fn make<R: Read>(
    entry: &mut Entry<'_, R>,
    place: &Place,
    unpacking: &Unpacking<'_>,
) -> Result<(), Unfit> {
    let failed = |error| Unfit::Io(String::new(), error);
    let header = entry.header();
    let kind = header.entry_type();
    let mode = header.mode().map_err(broken)? & 0o7777;
    let owner = |id: u64| u32::try_from(id).map_err(|_| Unfit::Layer(format!("owner {id}")));
    let (user, group) =
        (owner(header.uid().map_err(broken)?)?, owner(header.gid().map_err(broken)?)?);
    let time = header.mtime().map_err(broken)?;
    let path = place.path();
    clear(&path, kind == EntryType::Directory).map_err(failed)?;
    match kind {
        EntryType::Directory => {
            if !path.is_dir() {
                fs::create_dir(&path).map_err(failed)?;
            }
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            copy(entry, &mut file)?;
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(time));
            time.map_or(Ok(()), |time| file.set_modified(time)).map_err(failed)?;
        }
        EntryType::Symlink => {
            let target = entry.link_name().map_err(broken)?;
            let target = target.ok_or_else(|| Unfit::Layer("a link to nothing".into()))?;
            std::os::unix::fs::symlink(&target, &path).map_err(failed)?;
            return lchown(&path, Some(user), Some(group)).map_err(failed);
        }
        EntryType::Link => {
            let target = entry.link_name().map_err(broken)?;
            let target = inside(&target.unwrap_or_default())?;
            let old = unpacking.place(&target)?;
            // Rights and owner are those of the other name.
            return fs::hard_link(old.path(), &path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => leads_out(&target),
                _ => failed(error),
            });
        }
        EntryType::Fifo => nix::unistd::mkfifo(&path, Mode::S_IRWXU)
            .map_err(|error| Unfit::Io(String::new(), error.into()))?,
        // Device nodes, and what only speaks of other entries.
        _ => return Ok(()),
    }
    // The owner first: a change of owner takes setuid bits away.
    lchown(&path, Some(user), Some(group)).map_err(failed)?;
    fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)
}

/// Removes what is in the way of a new entry; a folder is no hindrance to a folder.
fn clear(path: &Path, for_folder: bool) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(what) if what.is_dir() && for_folder => Ok(()),
        Ok(what) if what.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    /// A folder for the image, removed at the end.
    struct Image(PathBuf);

    impl Image {
        fn new(name: &str) -> Image {
            let path = std::env::temp_dir().join(format!("layer-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("root")).unwrap();
            Image(path)
        }

        fn root(&self) -> PathBuf {
            self.0.join("root")
        }

        fn take(&self, layer: Layer) -> Result<(), Unfit> {
            let bytes = layer.0.into_inner().unwrap();
            unpack(&*bytes, &self.root(), &mut Room::of(1 << 20, 100))
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.root().join(path)).unwrap()
        }

        fn has(&self, path: &str) -> bool {
            fs::symlink_metadata(self.root().join(path)).is_ok()
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A tar, entry by entry; names are taken as they are, also bad ones.
    struct Layer(tar::Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Layer {
            Layer(tar::Builder::new(Vec::new()))
        }

        fn with(mut self, kind: EntryType, name: &str, data: &str) -> Layer {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o640);
            // Whoever runs the tests.
            header.set_uid(nix::unistd::getuid().as_raw().into());
            header.set_gid(nix::unistd::getgid().as_raw().into());
            header.set_mtime(7);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let body = if is_link { "" } else { data };
            if is_link {
                header.as_mut_bytes()[157..157 + data.len()].copy_from_slice(data.as_bytes());
            }
            header.set_size(body.len() as u64);
            header.set_cksum();
            self.0.append(&header, body.as_bytes()).unwrap();
            self
        }

        fn file(self, name: &str, data: &str) -> Layer {
            self.with(EntryType::Regular, name, data)
        }

        fn folder(self, name: &str) -> Layer {
            self.with(EntryType::Directory, name, "")
        }

        fn link(self, name: &str, to: &str) -> Layer {
            self.with(EntryType::Symlink, name, to)
        }
    }

    #[test]
    fn a_layer_adds_replaces_and_takes_away() {
        let image = Image::new("whiteouts");
        let below = Layer::new()
            .folder("./etc/")
            .file("etc/old", "1")
            .file("etc/kept", "1")
            .file("srv/a/b", "1")
            .file("srv/a/c", "1")
            .file("srv/d", "1")
            .file("was-file", "1")
            .file("was-folder/x", "1");
        image.take(below).unwrap();
        let above = Layer::new()
            .file("etc/.wh.old", "")
            .file("etc/.wh.never-there", "")
            .file("nowhere/.wh.x", "")
            // Before and after what the same layer makes there.
            .file("srv/a/new", "2")
            .file("srv/.wh..wh..opq", "")
            .file("srv/e", "2")
            .folder("was-file")
            .file("was-file/x", "2")
            .file("was-folder", "2")
            .file("etc/kept", "2");
        image.take(above).unwrap();
        assert!(!image.has("etc/old") && !image.has("srv/d"));
        assert!(!image.has("srv/a/b") && !image.has("srv/a/c"));
        let texts = ["srv/a/new", "srv/e", "was-file/x", "was-folder", "etc/kept"];
        assert!(texts.iter().all(|path| image.text(path) == "2"));
        let what = fs::metadata(image.root().join("srv/e")).unwrap();
        assert_eq!((what.mode() & 0o7777, what.mtime()), (0o640, 7));
    }

    #[test]
    fn links_lead_where_they_would_inside() {
        let image = Image::new("links");
        let outside = image.0.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "whole").unwrap();
        let victim = outside.display().to_string();
        let layer = Layer::new()
            .folder("usr")
            .folder("usr/lib")
            .link("lib", "usr/lib")
            .link("abs", "/usr/lib")
            .link("up", "../../../../usr/lib")
            .link("out", &victim)
            .file("lib/a", "1")
            .file("abs/b", "1")
            .file("up/c", "1")
            .file("real", "1")
            .with(EntryType::Link, "usr/lib/hard", "real")
            .with(EntryType::Char, "usr/lib/null", "");
        image.take(layer).unwrap();
        for name in ["a", "b", "c", "hard"] {
            assert_eq!(image.text(&format!("usr/lib/{name}")), "1", "{name}");
        }
        assert!(!image.has("usr/lib/null"), "device nodes are passed over");
        // As inside the image, where there is no such folder.
        for layer in [
            Layer::new().file("out/new", "x"),
            Layer::new().file("../new", "x"),
            Layer::new().file("usr/../../new", "x"),
            Layer::new().with(EntryType::Link, "hard", "out/victim"),
            Layer::new().with(EntryType::Link, "hard", "../outside/victim"),
            Layer::new().file("real/below-a-file", "x"),
            Layer::new().file(".wh...", "x"),
        ] {
            assert!(matches!(image.take(layer), Err(Unfit::Layer(_) | Unfit::Io(..))));
        }
        image.take(Layer::new().file("out/.wh.victim", "")).unwrap();
        image.take(Layer::new().file("out/.wh..wh..opq", "")).unwrap();
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "whole");
        assert_eq!(fs::read_dir(&image.0).unwrap().count(), 2, "nothing beside it");
        // What is written where a link was replaces the link.
        image.take(Layer::new().file("out", "2").folder("abs")).unwrap();
        assert_eq!(image.text("out"), "2");
        assert!(fs::symlink_metadata(image.root().join("abs")).unwrap().is_dir());
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_told_apart() {
        let image = Image::new("bounds");
        let unpacked = |layer: &[u8], bytes, entries| {
            unpack(layer, &image.root(), &mut Room::of(bytes, entries))
        };
        let whole = Layer::new().file("a", &"x".repeat(5000)).0.into_inner().unwrap();
        let half = unpacked(&whole[..1000], 1 << 20, 10);
        assert!(matches!(half, Err(Unfit::Layer(_))), "{half:?}");
        // In blocks, as the disk counts.
        let large = unpacked(&whole, 2 * BLOCK - 1, 10);
        assert!(matches!(large, Err(Unfit::Room)), "{large:?}");
        unpacked(&whole, 2 * BLOCK, 1).unwrap();
        let many = Layer::new().file("b/c/d", "").0.into_inner().unwrap();
        assert!(matches!(unpacked(&many, 1 << 20, 2), Err(Unfit::Room)), "folders count");
        unpacked(&many, 1 << 20, 3).unwrap();
        let mut room = Room::of(10, 1);
        assert!(matches!(room.hold(11), Err(Unfit::Room)));
        room.hold(10).unwrap();
        assert!(matches!(room.hold(1), Err(Unfit::Room)));
        room.release(10);
        room.hold(10).unwrap();
        assert!(matches!(unpacked(&[7; 4096], 1 << 20, 10), Err(Unfit::Layer(_))));
    }

    #[test]
    fn nothing_lies_so_deep_that_it_cannot_be_removed() {
        let image = Image::new("deep");
        // As much as an old tar can name.
        let deep = "d/".repeat(45);
        let unpacked = |layer: Layer| {
            let bytes = layer.0.into_inner().unwrap();
            unpack(&*bytes, &image.root(), &mut Room::of(1 << 22, 1000))
        };
        unpacked(Layer::new().file(&format!("{deep}x"), "").link("1", &deep)).unwrap();
        // Links to the lowest folder, and as many below it again.
        for link in 1..4 {
            let below = Layer::new().file(&format!("{link}/{deep}x"), "");
            unpacked(below.link(&format!("{}", link + 1), &format!("{link}/{deep}"))).unwrap();
        }
        let more = unpacked(Layer::new().file(&format!("4/{deep}x"), ""));
        assert!(matches!(&more, Err(Unfit::Layer(why)) if why.contains("too deep")), "{more:?}");
    }
}
