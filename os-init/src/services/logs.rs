//! What a service wrote: the two files of `os-log`, read as one, and followed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

use super::wire::LogChunk;

/// Where `os-log` writes.
pub const FOLDER: &str = "/run/bascule/log";
/// Between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(250);
/// The largest piece that is sent at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// A log that is being read.
struct Reader {
    path: PathBuf,
    file: Option<File>,
}

impl Reader {
    /// What was written since the last look. The file may have been set aside meanwhile and begun
    /// anew: then the rest of the old one comes first.
    fn news(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes)?;
        }
        let fresh = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
            Err(error) => return Err(error),
        };
        let inode = |file: &File| file.metadata().map(|it| it.ino());
        let same = match &self.file {
            Some(file) => inode(file)? == inode(&fresh)?,
            None => false,
        };
        if !same {
            let mut fresh = fresh;
            fresh.read_to_end(&mut bytes)?;
            self.file = Some(fresh);
        }
        Ok(bytes)
    }
}

/// Opens the log of `name` in `folder` and reads what is there.
fn open(folder: &Path, name: &str) -> io::Result<(Reader, Vec<u8>)> {
    let path = folder.join(format!("{name}.log"));
    let mut reader = Reader { file: None, path };
    let mut bytes = Vec::new();
    // The newer one first: if it is set aside between the two reads, its lines come twice at worst.
    let newer = reader.news()?;
    match File::open(folder.join(format!("{name}.log.1"))) {
        Ok(mut older) => {
            older.read_to_end(&mut bytes)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    bytes.extend(newer);
    Ok((reader, bytes))
}

/// The last `count` lines; all when it is 0.
fn last_lines(bytes: &[u8], count: usize) -> &[u8] {
    if count == 0 {
        return bytes;
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = ends.map(|(place, _)| place + 1).nth(count - 1).unwrap_or(0);
    bytes.get(start..).unwrap_or_default()
}

/// Sends the log of `name` until its end, or for as long as somebody listens.
pub async fn send(
    name: String,
    lines: u32,
    follow: bool,
    to: mpsc::Sender<Result<LogChunk, Status>>,
) {
    let sent = send_all(&name, lines, follow, &to).await;
    if let Err(error) = sent {
        // Nobody may listen any more.
        let _ = to.send(Err(Status::unavailable(format!("read the log of {name}: {error}")))).await;
    }
}

async fn send_all(
    name: &str,
    lines: u32,
    follow: bool,
    to: &mpsc::Sender<Result<LogChunk, Status>>,
) -> io::Result<()> {
    let (mut reader, bytes) = open(Path::new(FOLDER), name)?;
    let count = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut bytes = last_lines(&bytes, count).to_vec();
    loop {
        for chunk in bytes.chunks(CHUNK) {
            if to.send(Ok(LogChunk { text: chunk.to_vec() })).await.is_err() {
                return Ok(());
            }
        }
        if !follow || to.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        bytes = reader.news()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_lines_are_whole() {
        let text = b"one\ntwo\nthree\n";
        for (count, expected) in [
            (0, "one\ntwo\nthree\n"),
            (1, "three\n"),
            (2, "two\nthree\n"),
            (3, "one\ntwo\nthree\n"),
            (9, "one\ntwo\nthree\n"),
        ] {
            assert_eq!(last_lines(text, count), expected.as_bytes(), "{count}");
        }
        assert_eq!(last_lines(b"one\nunfinished", 1), b"unfinished");
        assert_eq!(last_lines(b"", 3), b"");
    }

    #[test]
    fn a_log_is_followed_beyond_its_file() {
        let folder = std::env::temp_dir().join(format!("logs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("web.log");
        let (mut reader, bytes) = open(&folder, "web").unwrap();
        assert!(bytes.is_empty());
        fs::write(&path, "one\n").unwrap();
        assert_eq!(reader.news().unwrap(), b"one\n");
        assert_eq!(reader.news().unwrap(), b"");
        fs::write(&path, "one\ntwo\n").unwrap();
        fs::rename(&path, folder.join("web.log.1")).unwrap();
        assert_eq!(reader.news().unwrap(), b"two\n");
        fs::write(&path, "three\n").unwrap();
        assert_eq!(reader.news().unwrap(), b"three\n");
        assert_eq!(open(&folder, "web").unwrap().1, b"one\ntwo\nthree\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
