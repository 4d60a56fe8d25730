//! Keeps a container's output: containerd's shim starts one for each container (its `binary://`
//! logging driver) with the output as descriptors 3 and 4 and a pipe as 5 that is closed when we
//! are ready. Bounded: two files of [`FILE_MAX`] bytes each; the older one is dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One log file's size: two of them for each of a handful of services fit any machine's memory.
const FILE_MAX: u64 = 512 * 1024;
const FOLDER: &str = "/run/bascule/log";
/// The descriptor that the shim waits for.
const READY: i32 = 5;

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    fn open(folder: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size.saturating_add(bytes.len() as u64) > FILE_MAX {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

/// Drains one pipe to its end. A log that cannot be written costs lines, never the service's time.
fn drain(mut pipe: File, log: &Mutex<Log>) {
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                // Out of memory or space: the lines are lost, the pipe is still drained.
                let _ = log.append(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn main() -> io::Result<()> {
    let name = std::env::var("CONTAINER_ID").unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let name = if !name.is_empty() && name.bytes().all(plain) { name } else { "unnamed".into() };
    let log = Arc::new(Mutex::new(Log::open(Path::new(FOLDER), &name)?));
    // Opened anew through /proc: the pipes' read ends, as files of our own.
    let pipes = [File::open("/proc/self/fd/3")?, File::open("/proc/self/fd/4")?];
    nix::unistd::close(READY)?;
    let readers: Vec<_> = pipes
        .into_iter()
        .map(|pipe| {
            let log = Arc::clone(&log);
            thread::spawn(move || drain(pipe, &log))
        })
        .collect();
    for reader in readers {
        // A reader that panicked has nothing more to say.
        let _ = reader.join();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_stays_within_two_files() {
        let folder = std::env::temp_dir().join(format!("os-log-{}", std::process::id()));
        let mut log = Log::open(&folder, "x").unwrap();
        for _ in 0..300 {
            log.append(&[b'a'; 4096]).unwrap();
        }
        let sizes: Vec<u64> = ["x.log", "x.log.1"]
            .iter()
            .map(|name| fs::metadata(folder.join(name)).unwrap().len())
            .collect();
        fs::remove_dir_all(&folder).unwrap();
        assert!(sizes.iter().all(|size| *size <= FILE_MAX), "{sizes:?}");
        assert!(sizes[1] > FILE_MAX - 4096);
    }
}
