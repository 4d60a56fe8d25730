//! Reading an OCI layout that holds a release: the image first, then what vouches for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use update_manifest::digest::Digest;
use update_manifest::oci::{Descriptor, Index, MEDIA_LAYER, MEDIA_MANIFEST, Manifest};
use update_manifest::sign::SignatureArtifact;

/// How a signature is found by those who look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Under a tag made from the image's digest.
    Tag,
    /// In the list of what refers to the image.
    Referrers,
}

/// A layout in a folder.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
    index: Index,
    /// The image.
    pub image: Descriptor,
    /// Its manifest as it is written.
    pub bytes: Vec<u8>,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Layout {
    /// Opens the layout in `folder`, or in `oci` of the output folder of a build.
    ///
    /// # Errors
    /// It is none, or its first image is no release.
    pub fn open(folder: &Path) -> Result<Self> {
        let inside = folder.join("oci");
        let folder = if inside.join("index.json").exists() { inside } else { folder.to_owned() };
        let path = folder.join("index.json");
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let index = Index::parse(&bytes).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let image = index.manifests.first().cloned();
        let image = image.with_context(|| format!("{} lists nothing", path.display()))?;
        let bytes = read(&folder, &image)?;
        let manifest = parse(&bytes)?;
        if manifest.layers.first().is_none_or(|layer| layer.media_type != MEDIA_LAYER) {
            bail!("the first entry of {} is no OS image", path.display());
        }
        Ok(Self { folder, index, image, bytes, manifest })
    }

    /// The file of a blob.
    #[must_use]
    pub fn blob(&self, descriptor: &Descriptor) -> PathBuf {
        blob(&self.folder, descriptor)
    }

    /// A blob that fits into memory.
    ///
    /// # Errors
    /// It is missing, or has another digest.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        read(&self.folder, descriptor)
    }

    /// The image's signatures.
    ///
    /// # Errors
    /// One is missing or damaged.
    pub fn signatures(&self) -> Result<Vec<(SignatureArtifact, Found)>> {
        let mut signatures = Vec::new();
        for entry in self.index.manifests.get(1..).unwrap_or_default() {
            if entry.media_type == MEDIA_MANIFEST {
                signatures.push((self.signature(entry)?, Found::Tag));
                continue;
            }
            let list = Index::parse(&self.read(entry)?).map_err(|error| anyhow!("{error}"))?;
            for referrer in &list.manifests {
                signatures.push((self.signature(referrer)?, Found::Referrers));
            }
        }
        Ok(signatures)
    }

    fn signature(&self, descriptor: &Descriptor) -> Result<SignatureArtifact> {
        let bytes = self.read(descriptor)?;
        let manifest = parse(&bytes)?;
        let layer = manifest.layers.first().context("signature without a layer")?;
        Ok(SignatureArtifact {
            config: self.read(&manifest.config)?,
            layer: self.read(layer)?,
            manifest: bytes,
            descriptor: descriptor.clone(),
        })
    }
}

fn blob(folder: &Path, descriptor: &Descriptor) -> PathBuf {
    folder.join("blobs/sha256").join(descriptor.digest.hex())
}

fn read(folder: &Path, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let path = blob(folder, descriptor);
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    if Digest::of(&bytes) != descriptor.digest {
        bail!("{} is not what its name says", path.display());
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Manifest> {
    Manifest::parse(bytes).map_err(|error| anyhow!("manifest: {error}"))
}
