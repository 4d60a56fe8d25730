//! A real registry, a small image in it, and the stock tools that publishers use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use update_manifest::oci::{Descriptor, MEDIA_CONFIG, MEDIA_LAYER, MEDIA_MANIFEST};
use update_manifest::sign::{SigningKey, describe};
use update_manifest::trust::{TrustRoots, TrustedKey};
use updater::registry::Registry;

use super::client;

/// Debian's `docker-registry` on a port of its own, with a folder of its own.
pub struct Server {
    _registry: fault_proxy::registry::Registry,
    /// `127.0.0.1:PORT`.
    pub authority: String,
    /// A folder for the test's files; removed at the end.
    pub folder: PathBuf,
}

impl Server {
    /// Starts one; `name` keeps tests apart.
    pub fn start(name: &str) -> Server {
        let folder = std::env::temp_dir().join(format!("stock-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let registry = fault_proxy::registry::Registry::start(&folder);
        Server { authority: registry.authority.clone(), _registry: registry, folder }
    }

    /// Our client.
    pub fn client(&self) -> Registry {
        client(&self.authority)
    }

    /// Pushes a small image to `repository` under the tag `v1`; `seed` makes it another one.
    pub async fn publish(&self, repository: &str, seed: &str) -> Descriptor {
        let client = self.client();
        let layer = format!("a layer {seed}");
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers",
            "diff_ids":[]},"config":{}}"#;
        client.push_blob(repository, layer.as_bytes()).await.unwrap();
        client.push_blob(repository, config.as_bytes()).await.unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": describe(MEDIA_CONFIG, config.as_bytes()),
            "layers": [describe(MEDIA_LAYER, layer.as_bytes())],
        })
        .to_string();
        client.push_manifest(repository, "v1", MEDIA_MANIFEST, manifest.as_bytes()).await.unwrap();
        describe(MEDIA_MANIFEST, manifest.as_bytes())
    }

    /// Writes a key pair in our form beside the registry; returns the private and public file.
    pub fn key_files(&self, key: &SigningKey) -> (PathBuf, PathBuf) {
        let (private, public) = (self.folder.join("key.pem"), self.folder.join("key.pub"));
        fs::write(&private, key.to_pem().unwrap()).unwrap();
        fs::write(&public, key.public_pem().unwrap()).unwrap();
        (private, public)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What stays is in a temporary folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Trust in exactly `key`.
pub fn trust(key: &SigningKey) -> TrustRoots {
    let pem = key.public_pem().unwrap();
    TrustRoots::new([TrustedKey::from_pem("publisher", &pem).unwrap()])
}

/// Runs a tool of `$BASCULE_TOOLS` or of the system; returns whether it succeeded and what it said.
pub fn tool(name: &str, folder: &Path, words: &[&str]) -> (bool, String) {
    let program = match std::env::var_os("BASCULE_TOOLS") {
        Some(tools) if Path::new(&tools).join(name).exists() => Path::new(&tools).join(name),
        _ => PathBuf::from(name),
    };
    let done = Command::new(&program)
        .args(words)
        .current_dir(folder)
        .env("HOME", folder)
        .env("COSIGN_PASSWORD", "")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
    let said = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
    (done.status.success(), said.into_owned())
}

/// [`tool`], which must succeed.
pub fn must(name: &str, folder: &Path, words: &[&str]) -> String {
    let (good, said) = tool(name, folder, words);
    assert!(good, "{name} {words:?}: {said}");
    said
}
