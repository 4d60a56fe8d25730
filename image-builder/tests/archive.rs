//! Downloads from an archive that breaks off, has lost a file, or is ill.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use image_builder::archive::{self, Archive};
use image_builder::lock::Pinned;

const REFRESH: &str = "image-builder lock spec.toml --update";
const SIZE: usize = 300_000;
const PIECE: usize = 40_000;

/// What the archive does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Sends what was asked for.
    Well,
    /// Promises it, sends so many bytes and hangs up.
    BreaksOff(usize),
    /// Says this status and nothing else.
    Says(&'static str),
}

/// One file behind HTTP. Where each request wanted to begin is kept.
struct Site {
    port: u16,
    starts: Arc<Mutex<Vec<usize>>>,
    mood: Arc<Mutex<Mood>>,
}

impl Site {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let site = Self { port, starts: Arc::default(), mood: Arc::new(Mutex::new(mood)) };
        let (starts, mood) = (site.starts.clone(), site.mood.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever hung up has seen enough.
                let _ = serve(stream.unwrap(), &starts, &mood);
            }
        });
        site
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Where the requests so far began; forgets them.
    fn starts(&self) -> Vec<usize> {
        std::mem::take(&mut *self.starts.lock().unwrap())
    }
}

/// The file: no part of it is like another.
fn body() -> Vec<u8> {
    (0..SIZE as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Answers the requests of one connection.
fn serve(
    mut stream: TcpStream,
    starts: &Mutex<Vec<usize>>,
    mood: &Mutex<Mood>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    loop {
        let mut start = 0;
        loop {
            let Some(line) = lines.next().transpose()? else { return Ok(()) };
            if let Some(range) = line.strip_prefix("Range: bytes=") {
                start = range.trim_end_matches('-').parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        starts.lock().unwrap().push(start);
        let mood = *mood.lock().unwrap();
        if let Mood::Says(status) = mood {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let rest = &body()[start..];
        let head = match start {
            0 => "200 OK".to_owned(),
            _ => format!("206 Partial\r\nContent-Range: bytes {start}-{}/{SIZE}", SIZE - 1),
        };
        write!(
            stream,
            "HTTP/1.1 {head}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Length: {}\r\n\r\n",
            rest.len()
        )?;
        if let Mood::BreaksOff(after) = mood {
            return stream.write_all(&rest[..after.min(rest.len())]);
        }
        stream.write_all(rest)?;
    }
}

/// The site as an archive, with a cache of its own, and the pin of its file.
fn pinned(site: &Site, name: &str) -> (Archive, Pinned, PathBuf) {
    let folder = std::env::temp_dir().join(format!("archive-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("copy");
    fs::write(&copy, body()).unwrap();
    let address = format!("http://127.0.0.1:{}/debian", site.port);
    let archive = Archive::of_machine(&folder.join("cache"), Some(&address)).unwrap();
    let pinned = Pinned {
        suite: "trixie".into(),
        name: "one".into(),
        version: "1.0".into(),
        arch: "all".into(),
        size: SIZE as u64,
        sha256: archive::sha256(&copy).unwrap(),
        path: "pool/one_1.0_all.deb".into(),
    };
    (archive, pinned, folder)
}

#[test]
fn a_download_that_breaks_off_goes_on_in_the_next_run() {
    // More pieces than apt tries by itself.
    let site = Site::start(Mood::BreaksOff(PIECE));
    let (archive, pinned, folder) = pinned(&site, "resumed");
    let error = archive.fetch(std::slice::from_ref(&pinned), REFRESH).unwrap_err();
    assert!(!format!("{error:#}").contains(REFRESH), "{error:#}");
    let broken = site.starts();
    site.becomes(Mood::Well);
    let files = archive.fetch(std::slice::from_ref(&pinned), REFRESH).unwrap();
    assert_eq!(fs::read(&files[0]).unwrap(), body());
    // No byte is asked for twice.
    assert_eq!(site.starts(), [broken.len() * PIECE], "{broken:?}");
    // Nor is a file that is there.
    site.becomes(Mood::Says("500 Ill"));
    assert_eq!(archive.fetch(&[pinned], REFRESH).unwrap(), files);
    assert_eq!(site.starts(), [0; 0]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_is_gone_names_the_command_that_helps() {
    let site = Site::start(Mood::Says("404 Not Found"));
    let (archive, pinned, folder) = pinned(&site, "gone");
    let error = format!("{:#}", archive.fetch(&[pinned], REFRESH).unwrap_err());
    fs::remove_dir_all(folder).unwrap();
    assert!(error.contains("one 1.0 is gone from the archive"), "{error}");
    assert!(error.contains(REFRESH) && error.contains("/debian/pool/one_1.0_all.deb"), "{error}");
}

#[test]
fn an_archive_that_is_ill_has_lost_nothing() {
    let site = Site::start(Mood::Says("403 Forbidden"));
    let (archive, pinned, folder) = pinned(&site, "ill");
    let error = format!("{:#}", archive.fetch(&[pinned], REFRESH).unwrap_err());
    fs::remove_dir_all(folder).unwrap();
    assert!(error.contains("fetch one 1.0 from http://127.0.0.1"), "{error}");
    assert!(!error.contains("gone") && !error.contains(REFRESH), "{error}");
}
