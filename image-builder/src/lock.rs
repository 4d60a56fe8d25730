//! The lock file: exactly which packages an image is made of.
//!
//! One package a line, seven words: suite, name, version, architecture, size in bytes, SHA-256,
//! path in the archive. A line that begins with `#` is for people.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One pinned package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Suite it was found in, for people.
    pub suite: String,
    /// Name.
    pub name: String,
    /// Version, in Debian's notation.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Path below the archive's root.
    pub path: String,
}

const HEAD: &str = "\
# Written by `image-builder lock --update`; checked against the archive's signature then.
# suite name version architecture size sha256 path
";

/// Reads a lock file.
///
/// # Errors
/// It is missing, or a line is malformed.
pub fn read(path: &Path) -> Result<Vec<Pinned>> {
    let text = fs::read_to_string(path).with_context(|| {
        format!("read lock {} (make it with `image-builder lock --update`)", path.display())
    })?;
    parse(&text).with_context(|| format!("lock {}", path.display()))
}

/// Writes a lock file, sorted by suite and name.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, packages: &[Pinned]) -> Result<()> {
    fs::write(path, format(packages)).with_context(|| format!("write lock {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Pinned>> {
    let mut packages = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [suite, name, version, arch, size, sha256, path] = words.as_slice() else {
            bail!("line {}: {} words instead of 7", number + 1, words.len());
        };
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|it| it.is_ascii_hexdigit());
        if !is_hash || path.contains("..") || !path.starts_with("pool/") {
            bail!("line {}: not a SHA-256 and a path below pool/", number + 1);
        }
        packages.push(Pinned {
            suite: (*suite).to_owned(),
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            arch: (*arch).to_owned(),
            size: size.parse().with_context(|| format!("line {}: size {size}", number + 1))?,
            sha256: (*sha256).to_owned(),
            path: (*path).to_owned(),
        });
    }
    Ok(packages)
}

fn format(packages: &[Pinned]) -> String {
    let mut lines: Vec<String> = packages
        .iter()
        .map(|it| {
            format!(
                "{} {} {} {} {} {} {}\n",
                it.suite, it.name, it.version, it.arch, it.size, it.sha256, it.path
            )
        })
        .collect();
    lines.sort();
    format!("{HEAD}{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(name: &str) -> Pinned {
        Pinned {
            suite: "trixie".into(),
            name: name.into(),
            version: "1:2.0-3+b1".into(),
            arch: "amd64".into(),
            size: 42,
            sha256: "ab".repeat(32),
            path: format!("pool/main/{name}_2.0-3+b1_amd64.deb"),
        }
    }

    #[test]
    fn what_is_written_is_read_again_sorted() {
        let text = format(&[pinned("b"), pinned("a")]);
        assert_eq!(parse(&text).unwrap(), [pinned("a"), pinned("b")]);
    }

    #[test]
    fn a_malformed_line_is_named() {
        for bad in ["trixie a 1 amd64", "trixie a 1 amd64 x y pool/z", ""] {
            let text = format!("{HEAD}{bad}\n");
            assert_eq!(parse(&text).is_ok(), bad.is_empty(), "{bad}");
        }
        let outside = format(&[Pinned { path: "pool/../../etc/passwd".into(), ..pinned("a") }]);
        assert!(parse(&outside).is_err());
    }
}
