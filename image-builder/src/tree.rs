//! The root tree in memory, and as the tar that `mkfs.erofs` reads.
//!
//! Everything belongs to root and carries one time. The tree needs no privileges to make, and its
//! order is that of the paths, so the same content gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

/// Links of a merged `/usr`, and where they lead.
const MERGED: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// One thing in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder with its permissions.
    Folder(u32),
    /// A file with its permissions and content; files that share content are hard links.
    File(u32, Arc<Vec<u8>>),
    /// A symbolic link.
    Link(String),
}

/// A root tree. Paths are relative to the root, without a leading `/`.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// The path below the root with the links of a merged `/usr` followed.
///
/// # Errors
/// The path leads out of the tree.
pub fn place(path: &str) -> Result<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => bail!("{path:?} leads out of the root"),
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    for (link, target) in MERGED {
        if let Some(rest) = path.strip_prefix(link).filter(|rest| rest.starts_with('/')) {
            return Ok(format!("{target}{rest}"));
        }
    }
    Ok(path)
}

impl Tree {
    /// A tree with the links of a merged `/usr` and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self::default();
        for (link, target) in MERGED {
            tree.nodes.insert(target.to_owned(), Node::Folder(0o755));
            tree.nodes.insert(link.to_owned(), Node::Link(target.to_owned()));
        }
        tree
    }

    /// Adds or replaces what is at `path`; folders above it are added.
    ///
    /// # Errors
    /// The path leads out of the tree, or a file or link is where a folder has to be.
    pub fn put(&mut self, path: &str, node: Node) -> Result<()> {
        let path = place(path)?;
        if path.is_empty() || MERGED.iter().any(|(link, _)| *link == path) {
            return Ok(());
        }
        for (at, _) in path.match_indices('/') {
            let above = path.get(..at).unwrap_or_default();
            match self.nodes.entry(above.to_owned()).or_insert(Node::Folder(0o755)) {
                Node::Folder(_) => {}
                _ => bail!("/{path}: /{above} is no folder"),
            }
        }
        if let (Some(Node::Folder(_)), false) = (self.nodes.get(&path), is_folder(&node)) {
            let inside = format!("{path}/");
            let used = self.nodes.range(inside.clone()..).next();
            ensure!(
                !used.is_some_and(|(name, _)| name.starts_with(&inside)),
                "/{path} is a folder that is not empty"
            );
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Adds or replaces a file.
    ///
    /// # Errors
    /// As [`Tree::put`].
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Result<()> {
        self.put(path, Node::File(mode, Arc::new(content.into())))
    }

    /// What is at `path`, without following links.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&place(path).ok()?)
    }

    /// Content of the file at `path`.
    ///
    /// # Errors
    /// There is no file.
    pub fn content(&self, path: &str) -> Result<&[u8]> {
        match self.get(path) {
            Some(Node::File(_, content)) => Ok(content),
            _ => bail!("the root tree has no file {path}"),
        }
    }

    /// Everything in it, in the order of the paths.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Takes out what `leaves` says; the paths that were taken out.
    pub fn remove(&mut self, leaves: impl Fn(&str) -> bool) -> Vec<(String, Node)> {
        self.nodes.extract_if(.., |path, _| leaves(path)).collect()
    }

    /// Sum of all files' sizes in bytes, shared content counted once.
    #[must_use]
    pub fn size(&self) -> u64 {
        let mut seen = HashMap::new();
        for node in self.nodes.values() {
            if let Node::File(_, content) = node {
                seen.insert(Arc::as_ptr(content), content.len() as u64);
            }
        }
        seen.values().sum()
    }

    /// Writes the tree as a tar (ustar with GNU long names), everything owned by root, with
    /// `time` in seconds since 1970.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write_tar(&self, out: impl Write, time: u64) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        let mut first_paths: HashMap<*const Vec<u8>, &str> = HashMap::new();
        let header = |kind: tar::EntryType, mode: u32, size: usize| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_mtime(time);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(size as u64);
            header
        };
        let mut root = header(tar::EntryType::Directory, 0o755, 0);
        tar.append_data(&mut root, "./", std::io::empty()).context("write the root's tar")?;
        for (path, node) in self.nodes() {
            let written = match node {
                Node::Folder(mode) => {
                    let mut header = header(tar::EntryType::Directory, *mode, 0);
                    tar.append_data(&mut header, format!("{path}/"), std::io::empty())
                }
                Node::Link(target) => {
                    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                    tar.append_link(&mut header, path, target)
                }
                Node::File(mode, content) => {
                    let first = first_paths.entry(Arc::as_ptr(content)).or_insert(path);
                    if *first == path || content.is_empty() {
                        let mut header = header(tar::EntryType::Regular, *mode, content.len());
                        tar.append_data(&mut header, path, content.as_slice())
                    } else {
                        let mut header = header(tar::EntryType::Link, *mode, 0);
                        tar.append_link(&mut header, path, *first)
                    }
                }
            };
            written.with_context(|| format!("write /{path} into the root's tar"))?;
        }
        tar.into_inner().and_then(|mut out| out.flush()).context("write the root's tar")
    }
}

fn is_folder(node: &Node) -> bool {
    matches!(node, Node::Folder(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_a_merged_usr() {
        assert_eq!(place("./lib/x86_64-linux-gnu/a.so").unwrap(), "usr/lib/x86_64-linux-gnu/a.so");
        assert_eq!(place("/usr/sbin//init").unwrap(), "usr/sbin/init");
        assert_eq!(place("lib").unwrap(), "lib");
        assert!(place("../etc/shadow").is_err());
    }

    #[test]
    fn a_file_does_not_take_the_place_of_a_full_folder() {
        let mut tree = Tree::new();
        tree.file("/etc/a", 0o644, "1").unwrap();
        assert!(tree.file("/etc", 0o644, "2").is_err());
        assert!(tree.file("/etc/a/b", 0o644, "2").is_err());
        tree.file("/etc/a", 0o600, "3").unwrap();
        assert_eq!(tree.content("/etc/a").unwrap(), b"3");
    }

    #[test]
    fn the_tar_is_the_same_whatever_the_order() {
        let files = [("/b", "1"), ("/a/c", "2"), ("/a/b", "3")];
        let tar = |order: &[(&str, &str)]| {
            let mut tree = Tree::new();
            order.iter().for_each(|(path, text)| tree.file(path, 0o644, *text).unwrap());
            let mut bytes = Vec::new();
            tree.write_tar(&mut bytes, 7).unwrap();
            bytes
        };
        let mut turned = files;
        turned.reverse();
        assert_eq!(tar(&files), tar(&turned));
    }
}
