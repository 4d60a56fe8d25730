//! Unpacking Debian packages: an `ar` archive with a compressed tar in it. No script of a package
//! is ever run.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::tree::{Node, Tree};

/// What a package may hold unpacked, in bytes.
const UNPACKED_MAX: u64 = 1 << 30;
/// What unpacking may take of memory in bytes: `xz -9` needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 128 << 20;
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// Size of the header before each member in bytes.
const AR_HEADER: u64 = 60;

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
pub fn read(
    mut package: impl Read,
    tree: &mut Tree,
    is_dropped: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let mut magic = [0; AR_MAGIC.len()];
    package.read_exact(&mut magic).context("read the ar archive")?;
    ensure!(magic == *AR_MAGIC, "it is no ar archive");
    while let Some((name, size)) = next_member(&mut package)? {
        let member = (&mut package).take(size);
        let reader: Box<dyn Read + '_> = match name.as_str() {
            "data.tar.xz" => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, flags);
                let stream = stream.context("start xz")?;
                Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
            }
            "data.tar.zst" => Box::new(zstd::Decoder::new(member).context("start zstd")?),
            "data.tar" => Box::new(member),
            other if other.starts_with("data.tar") => {
                bail!("{other} is packed in a way that is not known")
            }
            _ => {
                // Members begin at even places.
                let padded = size + size % 2;
                let skipped = std::io::copy(&mut (&mut package).take(padded), &mut std::io::sink());
                ensure!(skipped.context("read the ar archive")? >= size, "{name} is cut off");
                continue;
            }
        };
        return unpack_tar(reader.take(UNPACKED_MAX), tree, is_dropped).context(name);
    }
    bail!("there is no data.tar in it: it is no Debian package")
}

/// Name and size in bytes of the archive's next member; none at its end.
///
/// Of its header of 60 bytes: the name in the first 16, the size in decimal in ten from 48, and
/// the two bytes that end it.
fn next_member(package: &mut impl Read) -> Result<Option<(String, u64)>> {
    let mut header = Vec::new();
    package.take(AR_HEADER).read_to_end(&mut header).context("read the ar archive")?;
    if header.is_empty() {
        return Ok(None);
    }
    let text = |from: usize, to: usize| {
        let field = header.get(from..to).and_then(|field| std::str::from_utf8(field).ok());
        field.map(|field| field.trim_end().trim_end_matches('/'))
    };
    ensure!(header.get(58..60) == Some(b"`\n"), "the ar archive is damaged");
    let size = text(48, 58).and_then(|size| size.parse().ok());
    let (Some(name), Some(size)) = (text(0, 16), size) else { bail!("the ar archive is damaged") };
    Ok(Some((name.to_owned(), size)))
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
        let mut package = AR_MAGIC.to_vec();
        for (name, content) in [("debian-binary", &b"2.0\n\n"[..]), (member, &data)] {
            let size = content.len();
            package.extend(format!("{name:<16}{:<32}{size:<10}`\n", 0).bytes());
            package.extend(content);
            package.resize(package.len().next_multiple_of(2), b'\n');
        }
        package
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
            (b"PKZIP\x03\x04!", "no ar archive"),
            (&whole[..70], "cut off"),
            (&whole[..66], "damaged"),
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
