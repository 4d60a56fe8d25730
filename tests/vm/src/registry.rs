//! A real registry (Debian's `docker-registry`) on a free port, with storage of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::{self, Built};
use crate::http::{self, Answer};
use crate::machine::free_port;
use crate::release::{Image, digest_of};
use crate::wait;

/// Repository that the machines' configuration names.
pub const REPOSITORY: &str = "bascule/os";
/// Tag that it names.
pub const TAG: &str = "stable";

/// Both, behind the address that machines know ([`crate::machine::REGISTRY_ADDRESS`]).
pub const SOURCE: &str = "10.0.2.100:5000/bascule/os:stable";

const START: Duration = Duration::from_secs(20);

/// A running registry; ended and emptied when dropped.
pub struct Registry {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Registry {
    /// Starts one; its files are in the work folder under `name`.
    ///
    /// # Errors
    /// `docker-registry` is missing or does not answer.
    pub fn start(name: &str) -> Result<Self> {
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "docker-registry"]);
        Self::start_as(name, tied)
    }

    /// As [`Registry::start`], but it can outlive this program: see [`Registry::let_go`].
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_untied(name: &str) -> Result<Self> {
        let mut untied = Command::new("docker-registry");
        untied.process_group(0);
        Self::start_as(name, untied)
    }

    fn start_as(name: &str, mut program: Command) -> Result<Self> {
        let dir = artifacts::work_dir().join(format!("registry-{name}"));
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let port = free_port()?;
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.join("data").display()
        );
        let config_file = dir.join("config.yml");
        fs::write(&config_file, config).context("write the registry's configuration")?;
        let log = File::create(dir.join("log")).context("create the registry's log")?;
        let child = program
            .arg("serve")
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("clone the registry's log")?)
            .stderr(log)
            .spawn()
            .context("start docker-registry (package docker-registry)")?;
        let registry = Self { child, port, dir };
        wait::until("the registry to answer", START, || {
            Ok(registry.get("/v2/").ok().filter(|answer| answer.status == 200))
        })?;
        Ok(registry)
    }

    /// Leaves it running, with its files, and gives its process. Only for `demo --keep`.
    #[must_use]
    pub fn let_go(self) -> u32 {
        let process = self.child.id();
        std::mem::forget(self);
        process
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Pushes a built release with its signature, as a publisher does, and tags it.
    ///
    /// # Errors
    /// `image-builder push` fails.
    pub fn publish(&self, release: &Built) -> Result<()> {
        push(&release.dir, &format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", self.port))
    }

    /// Pushes an image made by a test, and what signs it, under [`TAG`].
    ///
    /// # Errors
    /// The registry refuses something.
    pub fn publish_image(&self, image: &Image) -> Result<()> {
        self.put_blob(&image.config)?;
        let layer = fs::read(&image.layer)
            .with_context(|| format!("read layer {}", image.layer.display()))?;
        self.put_blob(&layer)?;
        self.put_manifest(TAG, &image.manifest)?;
        for signature in &image.signatures {
            for blob in &signature.blobs {
                self.put_blob(blob)?;
            }
            self.put_manifest(&signature.tag, &signature.manifest)?;
        }
        Ok(())
    }

    /// Stores `bytes` as a blob.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<()> {
        let path = format!("/v2/{REPOSITORY}/blobs/{}", digest_of(bytes));
        if http::request(self.port, "HEAD", &path, &[], &[])?.status == 200 {
            return Ok(());
        }
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let answer =
            http::request(self.port, "POST", &path, &[], &[])?.expect(202, "start an upload")?;
        let location = answer.header("location").context("upload without a location")?;
        let path = match location.find("/v2/") {
            Some(at) => location.get(at..).unwrap_or_default(),
            None => location,
        };
        let joiner = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joiner}digest={}", digest_of(bytes));
        let headers = [("Content-Type", "application/octet-stream")];
        http::request(self.port, "PUT", &path, &headers, bytes)?.expect(201, "store a blob")?;
        Ok(())
    }

    /// Stores `bytes` as the manifest `reference`, with the media type that it states.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn put_manifest(&self, reference: &str, bytes: &[u8]) -> Result<()> {
        let parsed: serde_json::Value = serde_json::from_slice(bytes).context("parse manifest")?;
        let kind = parsed.get("mediaType").and_then(|kind| kind.as_str());
        let kind = kind.unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        let headers = [("Content-Type", kind)];
        http::request(self.port, "PUT", &path, &headers, bytes)?.expect(201, "store a manifest")?;
        Ok(())
    }

    /// Deletes the manifest that tag `reference` names.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn delete_tag(&self, reference: &str) -> Result<()> {
        let digest = self.digest(reference)?;
        let path = format!("/v2/{REPOSITORY}/manifests/{digest}");
        http::request(self.port, "DELETE", &path, &[], &[])?.expect(202, "delete a manifest")?;
        Ok(())
    }

    /// The digest that tag `reference` names.
    ///
    /// # Errors
    /// There is none.
    pub fn digest(&self, reference: &str) -> Result<String> {
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        let accept = "application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.oci.image.index.v1+json";
        let answer = http::request(self.port, "GET", &path, &[("Accept", accept)], &[])?;
        let answer = answer.expect(200, "look up a tag")?;
        Ok(digest_of(&answer.body))
    }

    /// The registry's log: one line a request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The file in which it keeps the blob `digest`, for tests that damage it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.dir.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(hex.get(..2).unwrap_or_default()).join(hex).join("data")
    }

    fn get(&self, path: &str) -> Result<Answer> {
        http::request(self.port, "GET", path, &[], &[])
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.dir.join("data"));
    }
}

/// Pushes the builder's output folder `dir` to `reference`.
///
/// # Errors
/// `image-builder push` fails.
pub fn push(dir: &Path, reference: &str) -> Result<()> {
    let output = Command::new(artifacts::host_program("image-builder")?)
        .arg("push")
        .arg(dir)
        .arg(reference)
        .arg("--plain-http")
        .stdin(Stdio::null())
        .output()
        .context("start image-builder")?;
    anyhow::ensure!(
        output.status.success(),
        "image-builder push {reference}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::machine::REGISTRY_ADDRESS;

    #[test]
    fn the_source_is_what_machines_reach() {
        assert_eq!(SOURCE, format!("{REGISTRY_ADDRESS}/{REPOSITORY}:{TAG}"));
    }

    /// What `demo --keep` promises: a tied one ends with the thread that started it.
    #[test]
    fn an_untied_registry_outlives_who_started_it() {
        let started = thread::spawn(|| {
            let registry = Registry::start_untied("untied").unwrap();
            let port = registry.port();
            (port, registry.let_go())
        });
        let (port, process) = started.join().unwrap();
        let answered = http::request(port, "GET", "/v2/", &[], &[]).map(|answer| answer.status);
        // The shell's own: a small system has no program of that name.
        let killed = Command::new("sh").args(["-c", &format!("kill {process}")]).status().unwrap();
        assert_eq!(answered.unwrap(), 200);
        assert!(killed.success());
    }
}
