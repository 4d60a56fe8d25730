//! Unpacking Debian packages: an `ar` archive with a compressed tar in it. No script of a package
//! is ever run.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::tree::{Node, Tree};

/// Adds what the package at `path` holds to `tree`, without paths that `is_dropped`.
///
/// # Errors
/// The file is no package, or something in it cannot be put into the tree.
pub fn unpack(path: &Path, tree: &mut Tree, is_dropped: &dyn Fn(&str) -> bool) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut members = ar::Archive::new(file);
    while let Some(member) = members.next_entry() {
        let member = member.with_context(|| format!("read {}", path.display()))?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let says = || format!("unpack {} of {}", name, path.display());
        let reader: Box<dyn Read + '_> = match name.trim_end_matches('/') {
            "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
            "data.tar.zst" => Box::new(zstd::Decoder::new(member).with_context(says)?),
            "data.tar" => Box::new(member),
            other if other.starts_with("data.tar") => {
                bail!("{}: {other} is packed in a way that is not known", path.display())
            }
            _ => continue,
        };
        return unpack_tar(reader, tree, is_dropped).with_context(says);
    }
    bail!("{} holds no data.tar: it is no Debian package", path.display())
}

fn unpack_tar(
    reader: impl Read,
    tree: &mut Tree,
    is_dropped: &dyn Fn(&str) -> bool,
) -> Result<()> {
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
