//! The root's file system: made by `mkfs.erofs` of the pinned tools, laid out for deltas.
//!
//! Metadata lies apart from data and no file tail is stored in an inode, so that a change in one
//! file moves nothing of another. The tools run by their own dynamic linker: they are newer than
//! the machine's.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::package;
use crate::progress;
use crate::run;
use crate::tree::{Node, Tree};

/// Programs of Debian packages unpacked in a folder.
#[derive(Debug, Clone)]
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Unpacks `packages` to `root`.
    ///
    /// # Errors
    /// A package is damaged, or `root` cannot be written.
    pub fn unpack(packages: &[PathBuf], root: &Path) -> Result<()> {
        let mut tree = Tree::new();
        for path in packages {
            package::unpack(path, &mut tree, &|path| {
                !["usr/bin/", "usr/sbin/", "usr/lib", "lib"].iter().any(|it| path.starts_with(it))
            })?;
        }
        for (path, node) in tree.nodes() {
            put(&root.join(path), node).with_context(|| format!("unpack tool /{path}"))?;
        }
        Ok(())
    }

    /// Tools that were unpacked to `root` before.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// A command that runs the tool's `program`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        command.arg("--library-path").arg(libraries);
        command.arg(self.root.join("usr/bin").join(program)).env("LC_ALL", "C");
        command
    }
}

fn put(target: &Path, node: &Node) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    match node {
        Node::Folder(_) => fs::create_dir_all(target)?,
        Node::Link(to) => symlink(to, target)?,
        Node::File(mode, content) => {
            fs::write(target, content.as_slice())?;
            fs::set_permissions(target, fs::Permissions::from_mode(mode | 0o200))?;
        }
    }
    Ok(())
}

/// Makes the file system `target` of `tree`; its size in bytes, a multiple of 4096.
///
/// # Errors
/// The tool fails, or `target` cannot be written.
pub fn make(tools: &Tools, tree: &Tree, uuid: &str, time: u64, target: &Path) -> Result<u64> {
    let tar = target.with_extension("tar-part");
    let file = File::create(&tar).with_context(|| format!("create {}", tar.display()))?;
    tree.write_tar(BufWriter::with_capacity(1 << 20, file), time)?;
    if target.exists() {
        fs::remove_file(target).with_context(|| format!("remove {}", target.display()))?;
    }
    let mut mkfs = tools.command("mkfs.erofs");
    mkfs.args(["--quiet", "-b4096", "-x-1", "-E^inline_data", "--MZ", "--workers=1"]);
    mkfs.arg(format!("-T{time}")).arg(format!("-U{uuid}")).arg("--tar=f").arg(target).arg(&tar);
    let bar = progress::turning("erofs");
    run::quiet(&mut mkfs, "erofs-utils of the tools lock")?;
    bar.finish_and_clear();
    fs::remove_file(&tar).with_context(|| format!("remove {}", tar.display()))?;
    let size = fs::metadata(target).context("look at the finished erofs")?.len();
    ensure!(size > 0 && size.is_multiple_of(4096), "mkfs.erofs wrote {size} bytes");
    Ok(size)
}

/// Extracts every file of the finished file system and compares it with `tree`: what is signed
/// must be what was meant.
///
/// # Errors
/// Something is missing, differs, or is there without having been meant.
pub fn compare(tools: &Tools, image: &Path, tree: &Tree, work: &Path) -> Result<()> {
    let folder = work.join("extracted");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    let mut fsck = tools.command("fsck.erofs");
    fsck.arg("--no-preserve-owner").arg("--no-preserve-perms");
    fsck.arg(format!("--extract={}", folder.display())).arg(image);
    run::quiet(&mut fsck, "erofs-utils of the tools lock")?;
    let bar = progress::things("compare", tree.nodes().count() as u64);
    let mut wanted = 0;
    for (path, node) in tree.nodes() {
        wanted += 1;
        bar.inc(1);
        let found = folder.join(path);
        let same = match node {
            Node::Folder(_) => found.symlink_metadata().is_ok_and(|meta| meta.is_dir()),
            Node::Link(target) => fs::read_link(&found).is_ok_and(|to| to == Path::new(target)),
            Node::File(_, content) => {
                found.symlink_metadata().is_ok_and(|meta| meta.is_file())
                    && fs::read(&found).is_ok_and(|bytes| bytes == **content)
            }
        };
        ensure!(same, "/{path} in the finished erofs is not what was put in");
    }
    bar.finish_and_clear();
    let found = count(&folder)?;
    ensure!(found == wanted, "the finished erofs holds {found} paths instead of {wanted}");
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
}

fn count(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        sum += 1;
        if entry.file_type().context("look at an extracted file")?.is_dir() {
            sum += count(&entry.path())?;
        }
    }
    Ok(sum)
}
