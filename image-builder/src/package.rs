//! Unpacking Debian packages: an `ar` archive with a compressed tar in it. No script of a package
//! is ever run.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::tree::{Node, Tree};

/// What a package may hold unpacked, in bytes.
const UNPACKED_MAX: u64 = 1 << 30;

/// Adds what the package at `path` holds to `tree`, without paths that `is_dropped`.
///
/// # Errors
/// The file is no package, or something in it cannot be put into the tree.
pub fn unpack(path: &Path, tree: &mut Tree, is_dropped: &dyn Fn(&str) -> bool) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    read(BufReader::new(file), tree, is_dropped)
        .with_context(|| format!("unpack {}", path.display()))
}

/// [`unpack`] of a package that is being read.
///
/// # Errors
/// As [`unpack`].
pub fn read(package: impl Read, tree: &mut Tree, is_dropped: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut members = ar::Archive::new(package);
    while let Some(member) = members.next_entry() {
        let member = member.context("read the ar archive")?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let reader: Box<dyn Read + '_> = match name.trim_end_matches('/') {
            "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
            "data.tar.zst" => Box::new(zstd::Decoder::new(member).context("start zstd")?),
            "data.tar" => Box::new(member),
            other if other.starts_with("data.tar") => {
                bail!("{other} is packed in a way that is not known")
            }
            _ => continue,
        };
        return unpack_tar(reader.take(UNPACKED_MAX), tree, is_dropped).context(name);
    }
    bail!("there is no data.tar in it: it is no Debian package")
}

fn unpack_tar(reader: impl Read, tree: &mut Tree, is_dropped: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut tar = tar::Archive::new(reader);
    for entry in tar.entries().context("read the tar")? {
        let mut entry = entry.context("read the tar")?;
        let raw = entry.path_bytes().into_owned();
        let text = std::str::from_utf8(&raw).context("a path that is not UTF-8")?;
        let path = crate::tree::place(text)?;
        if path.is_empty() || is_dropped(&path) {
            continue;
        }
        let mode = entry.header().mode().context("permissions")? & 0o7777;
        let target = || -> Result<String> {
            let target = entry.link_name_bytes().context("a link without a target")?;
            Ok(std::str::from_utf8(&target).context("a target that is not UTF-8")?.to_owned())
        };
        let node = match entry.header().entry_type() {
            tar::EntryType::Directory if matches!(tree.get(&path), Some(Node::Link(_))) => continue,
            tar::EntryType::Directory => Node::Folder(mode),
            tar::EntryType::Symlink => Node::Link(target()?),
            tar::EntryType::Link => {
                let target = target()?;
                tree.get(&target).cloned().with_context(|| format!("{path}: no {target}"))?
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).with_context(|| format!("read {path}"))?;
                Node::File(mode, Arc::new(content))
            }
            other => bail!("{path} is of a kind that packages do not have: {other:?}"),
        };
        tree.put(&path, node)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package whose tar holds what `fill` adds.
    fn package(member: &str, fill: impl Fn(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        fill(&mut tar);
        let tar = tar.into_inner().unwrap();
        let data =
            if member.ends_with(".zst") { zstd::encode_all(&tar[..], 1).unwrap() } else { tar };
        let mut package = ar::Builder::new(Vec::new());
        for (name, content) in [("debian-binary", &b"2.0\n"[..]), (member, &data)] {
            let header = ar::Header::new(name.as_bytes().to_vec(), content.len() as u64);
            package.append(&header, content).unwrap();
        }
        package.into_inner().unwrap()
    }

    fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o4755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }

    fn link(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, path, target).unwrap();
    }

    fn unpacked(package: &[u8]) -> Result<Tree> {
        let mut tree = Tree::new();
        read(package, &mut tree, &|path| path.starts_with("usr/share/doc"))?;
        Ok(tree)
    }

    #[test]
    fn files_links_and_permissions_arrive() {
        for member in ["data.tar", "data.tar.zst"] {
            let package = package(member, |tar| {
                file(tar, "./bin/one", "1");
                file(tar, "./usr/share/doc/one", "not wanted");
                link(tar, tar::EntryType::Symlink, "./bin/two", "one");
                link(tar, tar::EntryType::Link, "./bin/three", "bin/one");
            });
            let tree = unpacked(&package).unwrap();
            assert_eq!(tree.get("usr/bin/one"), tree.get("usr/bin/three"));
            assert_eq!(tree.content("/bin/one").unwrap(), b"1");
            assert!(matches!(tree.get("bin/one"), Some(Node::File(0o4755, _))));
            assert_eq!(tree.get("usr/bin/two"), Some(&Node::Link("one".into())));
            assert_eq!(tree.get("usr/share/doc/one"), None);
        }
    }

    #[test]
    fn what_is_no_package_is_refused_by_reason() {
        let lost = package("data.tar", |tar| link(tar, tar::EntryType::Link, "a", "nowhere"));
        let pipe = package("data.tar", |tar| link(tar, tar::EntryType::Fifo, "a", "b"));
        let whole = package("data.tar.zst", |tar| file(tar, "a", "1"));
        for (bytes, reason) in [
            (&b"!<arch>\n"[..], "no data.tar"),
            (b"PK", "ar archive"),
            (&package("data.tar.lzma", |_| ()), "not known"),
            (&lost, "no nowhere"),
            (&pipe, "kind"),
            (&whole[..whole.len() - 9], "data.tar.zst"),
        ] {
            let error = format!("{:#}", unpacked(bytes).unwrap_err());
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
