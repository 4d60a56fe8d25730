//! An OS image as a value: taken from a built release, changed by a test, signed again or not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use update_manifest::digest::Digest as ManifestDigest;
use update_manifest::sign::{self, SigningKey};

use crate::artifacts::Built;

/// One manifest, its config and layer, and the signatures that go with it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Manifest, the very bytes.
    pub manifest: Vec<u8>,
    /// Config, the very bytes.
    pub config: Vec<u8>,
    /// File of the layer.
    pub layer: PathBuf,
    /// What is pushed beside it.
    pub signatures: Vec<Signature>,
}

/// One signature in the layout of a tag beside the image.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Tag under which it is found.
    pub tag: String,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Its blobs.
    pub blobs: Vec<Vec<u8>>,
}

/// `sha256:…` of `bytes`.
pub fn digest_of(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

impl Image {
    /// The image in the OCI layout of `release`, without its signatures.
    ///
    /// # Errors
    /// The layout does not hold exactly one image with one layer.
    pub fn of(release: &Built) -> Result<Self> {
        let layout = release.layout();
        let index = read_json(&layout.join("index.json"))?;
        let manifests = index.get("manifests").and_then(Value::as_array).cloned();
        for descriptor in manifests.unwrap_or_default() {
            let manifest = fs::read(blob(&layout, &descriptor)?).context("read manifest")?;
            let parsed: Value = serde_json::from_slice(&manifest).context("parse manifest")?;
            let layer = parsed.pointer("/layers/0").cloned().unwrap_or_default();
            let kind = layer.get("mediaType").and_then(Value::as_str).unwrap_or_default();
            if kind != "application/vnd.oci.image.layer.v1.tar+zstd" {
                continue;
            }
            let config = parsed.get("config").context("manifest without config")?;
            let config = fs::read(blob(&layout, config)?).context("read config")?;
            let layer = blob(&layout, &layer)?;
            return Ok(Self { manifest, config, layer, signatures: Vec::new() });
        }
        bail!("no OS image in {}", layout.display())
    }

    /// The image's digest.
    pub fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// Changes one label of the config, and the manifest's reference to it.
    ///
    /// # Errors
    /// The config has no labels.
    pub fn set_label(&mut self, name: &str, value: &str) -> Result<()> {
        let mut config: Value = serde_json::from_slice(&self.config).context("parse config")?;
        let labels = config.pointer_mut("/config/Labels").context("config without labels")?;
        labels.as_object_mut().context("labels")?.insert(name.to_owned(), value.into());
        self.config = serde_json::to_vec(&config).context("encode config")?;
        let (digest, size) = (digest_of(&self.config), self.config.len());
        self.edit_manifest(|manifest| {
            if let Some(descriptor) = manifest.get_mut("config") {
                descriptor["digest"] = digest.into();
                descriptor["size"] = size.into();
            }
        })
    }

    /// Signs the image as it is now with the private key in the file `key`, in cosign's older
    /// layout. Earlier signatures stay.
    ///
    /// # Errors
    /// The file holds no key.
    pub fn sign(&mut self, key: &Path) -> Result<()> {
        let signature = self.signature(key)?;
        self.signatures.push(signature);
        Ok(())
    }

    /// A signature over the image as it is now, not yet attached to any.
    ///
    /// # Errors
    /// The file `key` holds no key.
    pub fn signature(&self, key: &Path) -> Result<Signature> {
        let pem = fs::read_to_string(key).with_context(|| format!("read {}", key.display()))?;
        let key = SigningKey::from_pem(&pem).map_err(|error| anyhow!("signing key: {error}"))?;
        let digest = ManifestDigest::of(&self.manifest);
        let artifact = sign::sign_simple(digest, "registry/bascule/os", &key);
        Ok(Signature {
            tag: digest.signature_tag(),
            manifest: artifact.manifest,
            blobs: vec![artifact.config, artifact.layer],
        })
    }

    /// Tag under which signatures over the image are looked for.
    pub fn signature_tag(&self) -> String {
        ManifestDigest::of(&self.manifest).signature_tag()
    }

    /// Changes the manifest by `edit`; its digest changes with it.
    ///
    /// # Errors
    /// The manifest is not JSON.
    pub fn edit_manifest(&mut self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut manifest: Value =
            serde_json::from_slice(&self.manifest).context("parse manifest")?;
        edit(&mut manifest);
        self.manifest = serde_json::to_vec(&manifest).context("encode manifest")?;
        Ok(())
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
    let hex = digest.strip_prefix("sha256:").context("descriptor without sha256 digest")?;
    Ok(layout.join("blobs/sha256").join(hex))
}
