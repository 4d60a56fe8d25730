//! Debian's `docker-registry`, which stands behind the proxy.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to answer at first.
const START: Duration = Duration::from_secs(30);

/// A running registry; ended when dropped. Its files are its folder's owner's to remove.
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub authority: String,
}

impl Registry {
    /// Starts one on a free port, with its files in `folder`.
    ///
    /// # Panics
    /// The folder cannot be written, or the program (package `docker-registry`) is not there or
    /// does not answer: a test cannot go on without it.
    #[must_use]
    pub fn start(folder: &Path) -> Registry {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let authority = free.expect("a free port").to_string();
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \
             {authority}\n",
            folder.join("data").display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry)");
        let registry = Registry { child, authority };
        let begun = Instant::now();
        while TcpStream::connect(&registry.authority).is_err() {
            assert!(begun.elapsed() < START, "the registry does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It has served its purpose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
