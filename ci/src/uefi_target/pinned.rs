//! Single packages of Debian by their hash, in the form and the cache of the image builder.
//!
//! One package a line, seven words: suite, name, version, architecture, size in bytes, SHA-256,
//! path in the archive. A line that begins with `#` is for people.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::archive;
use crate::{place, step};

const HELPER: &str = "/usr/lib/apt/apt-helper";

/// One pinned package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Suite it was found in.
    pub suite: String,
    /// Name.
    pub name: String,
    /// Version, in Debian's notation.
    pub version: String,
    /// Size of the file in bytes.
    size: u64,
    /// SHA-256 of the file, in hex.
    sha256: String,
    /// Path below the archive's root.
    path: String,
}

/// Reads a lock file.
///
/// # Errors
/// It is missing, or a line is malformed.
pub fn read(lock: &Path) -> Result<Vec<Pinned>> {
    let text = fs::read_to_string(lock).with_context(|| format!("read {}", lock.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse(line).with_context(|| format!("{} says {line:?}", lock.display())))
        .collect()
}

fn parse(line: &str) -> Result<Pinned> {
    let words: Vec<&str> = line.split(' ').collect();
    let [suite, name, version, _, size, sha256, path] = words.as_slice() else {
        anyhow::bail!("{} words instead of 7", words.len());
    };
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|it| it.is_ascii_hexdigit());
    ensure!(is_hash && path.starts_with("pool/"), "not a SHA-256 and a path below pool/");
    Ok(Pinned {
        suite: (*suite).to_owned(),
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        size: size.parse().context("the size is no number")?,
        sha256: (*sha256).to_owned(),
        path: (*path).to_owned(),
    })
}

impl Pinned {
    /// A folder with the package's files, from the cache if they are there.
    ///
    /// # Errors
    /// The archive has the file no more, cannot be reached, or what it gives differs.
    pub fn unpacked(&self) -> Result<PathBuf> {
        let folder = place::cache().join("unpacked").join(&self.sha256);
        if folder.is_dir() {
            return Ok(folder);
        }
        let package = self.downloaded()?;
        let part = folder.with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
        }
        fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").arg(package).arg(&part);
        step::run(&format!("unpack {} {}", self.name, self.version), &mut unpack)?;
        fs::rename(&part, &folder).with_context(|| format!("keep {}", folder.display()))?;
        Ok(folder)
    }

    fn downloaded(&self) -> Result<PathBuf> {
        let folder = place::cache().join("packages");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let package = folder.join(format!("{}.deb", self.sha256));
        if package.metadata().is_ok_and(|meta| meta.len() == self.size) {
            return Ok(package);
        }
        let part = folder.join(format!("{}.part", self.sha256));
        let mut last = None;
        for site in archive::sites()? {
            let site = site.trim_end_matches('/');
            let behind = if self.suite.ends_with("-security") { "-security" } else { "" };
            let mut download = Command::new(HELPER);
            download.args(["-o", "APT::Sandbox::User=", "download-file"]);
            download.arg(format!("{site}{behind}/{}", self.path)).arg(&part);
            download.arg(format!("SHA256:{}", self.sha256));
            let name = format!("download {} {}", self.name, self.version);
            match step::run(&name, &mut download) {
                Ok(()) => {
                    self.keep(&part, &package)?;
                    return Ok(package);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("apt knows no archive")?)
    }

    /// The file is what was pinned, whatever the helper says; under its name from now on.
    fn keep(&self, part: &Path, package: &Path) -> Result<()> {
        let bytes = fs::read(part).with_context(|| format!("read {}", part.display()))?;
        let hash = Sha256::digest(&bytes);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(hash == self.sha256, "{} is not the pinned {}", part.display(), self.path);
        fs::rename(part, package).with_context(|| format!("keep {}", package.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(content: &[u8]) -> Pinned {
        let hash: String = Sha256::digest(content).iter().map(|it| format!("{it:02x}")).collect();
        parse(&format!("testing a 1-1 amd64 {} {hash} pool/a_1-1.deb", content.len())).unwrap()
    }

    #[test]
    fn a_malformed_line_is_refused() {
        let hash = "ab".repeat(32);
        assert!(parse(&format!("testing a 1-1 amd64 7 {hash} pool/a.deb")).is_ok());
        for bad in [
            "testing a 1-1 amd64".to_owned(),
            format!("testing a 1-1 amd64 x {hash} pool/a.deb"),
            format!("testing a 1-1 amd64 7 {hash} /etc/passwd"),
            "testing a 1-1 amd64 7 abcd pool/a.deb".to_owned(),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_was_pinned_is_kept() {
        let folder = std::env::temp_dir().join(format!("pinned-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (part, package) = (folder.join("part"), folder.join("package"));
        fs::write(&part, "packagE").unwrap();
        let refused = pinned(b"package").keep(&part, &package).is_err();
        let kept_wrong = package.exists();
        fs::write(&part, "package").unwrap();
        let kept = pinned(b"package").keep(&part, &package).is_ok() && package.exists();
        fs::remove_dir_all(&folder).unwrap();
        assert!(refused && !kept_wrong && kept);
    }
}
