//! An initrd as the kernel reads it: a cpio archive in `newc` form, owned by root, without times.

use std::collections::BTreeSet;

/// Alignment of headers and contents inside the archive.
const ALIGN: usize = 4;
/// The kernel wants the next archive of a concatenation to begin at this alignment.
const ARCHIVE_ALIGN: usize = 512;
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;

/// A cpio archive being written. Folders of a file are added by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    count: u32,
}

impl Archive {
    /// Adds a file at `path` (absolute) with permissions `mode`.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.folder(path.get(..at).unwrap_or_default());
        }
        self.entry(path, FILE | mode, content);
    }

    /// Adds an empty folder at `path`, once.
    pub fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if !path.is_empty() && self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[]);
        }
    }

    /// The finished archive, ready to be followed by another.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(ARCHIVE_ALIGN), 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let links = if mode & FOLDER == FOLDER & !0o777 { 2 } else { 1 };
        // magic, inode, mode, uid, gid, links, mtime, size, dev ×2, rdev ×2, name size, check
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}\
             {:08x}{:08x}",
            self.count,
            0,
            0,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_lists_what_was_put_in() {
        let mut archive = Archive::default();
        archive.file("/init", 0o755, b"program");
        archive.file("/modules/001-a.ko", 0o644, b"module");
        archive.file("/modules/002-b.ko", 0o644, b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % ARCHIVE_ALIGN, 0);
        let mut cpio = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = cpio.wait_with_output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(names, ["init", "modules", "modules/001-a.ko", "modules/002-b.ko"]);
        assert!(text.lines().next().unwrap().starts_with("-rwxr-xr-x"), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with("drwxr-xr-x"), "{text}");
    }
}
