//! From an OCI layout to a registry: blobs, the image by digest, its signatures, and last the tag,
//! so that whoever sees the tag finds the signature.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use update_manifest::digest::Digest;
use update_manifest::oci::{Descriptor, Index, MEDIA_LAYER, MEDIA_MANIFEST, Manifest};
use update_manifest::sign::SignatureArtifact;
use updater::registry::push::Attachment;
use updater::registry::reference::Target;
use updater::registry::transport::Patience;
use updater::registry::{Reference, Registry, session};

/// Whether the registry speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTPS, as it should be.
    Tls,
    /// HTTP, for registries on the same machine.
    Plain,
}

/// Pushes the image in the folder `layout`, with its signatures, to `reference`; its digest.
/// `progress` is told the bytes of the layer that are sent.
///
/// # Errors
/// The layout is not one of ours, or the registry refuses or cannot be reached.
pub fn push(
    layout: &Path,
    reference: &str,
    scheme: Scheme,
    credentials: Option<session::Credentials>,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Digest> {
    let reference = Reference::parse(reference).map_err(|error| anyhow!(error))?;
    let Target::Tag(tag) = &reference.target else { bail!("push to a tag, not to a digest") };
    let access = session::Access {
        plain_http: scheme == Scheme::Plain,
        credentials,
        extra_ca: None,
        patience: Patience::FIELD,
    };
    let registry = Registry::new(&reference.registry, access).map_err(|error| anyhow!(error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let layout = Layout::open(layout)?;
    runtime.block_on(send(&layout, &registry, &reference.repository, tag, progress))
}

async fn send(
    layout: &Layout,
    registry: &Registry,
    repository: &str,
    tag: &str,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Digest> {
    let image = &layout.image;
    let bytes = layout.read(image)?;
    let manifest = parse(&bytes)?;
    let layer = manifest.layers.first().context("image without a layer")?;
    registry.push_blob(repository, &layout.read(&manifest.config)?).await?;
    registry.push_blob_file(repository, layer, &layout.blob(layer), progress).await?;
    let by_digest = image.digest.to_string();
    registry.push_manifest(repository, &by_digest, MEDIA_MANIFEST, &bytes).await?;
    for (descriptor, attachment) in &layout.signatures {
        let artifact = layout.signature(descriptor)?;
        registry.push_signature(repository, image.digest, &artifact, *attachment).await?;
    }
    Ok(registry.push_manifest(repository, tag, MEDIA_MANIFEST, &bytes).await?)
}

/// An OCI layout of ours: one image, and its signatures.
struct Layout {
    folder: PathBuf,
    image: Descriptor,
    signatures: Vec<(Descriptor, Attachment)>,
}

impl Layout {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("index.json");
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let index = Index::parse(&bytes).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let mut layout =
            Self { folder: folder.to_path_buf(), image: first(&index)?, signatures: Vec::new() };
        let manifest = parse(&layout.read(&layout.image)?)?;
        if manifest.layers.first().is_none_or(|layer| layer.media_type != MEDIA_LAYER) {
            bail!("the first entry of {} is no OS image", path.display());
        }
        for entry in index.manifests.get(1..).unwrap_or_default() {
            if entry.media_type == MEDIA_MANIFEST {
                layout.signatures.push((entry.clone(), Attachment::SignatureTag));
                continue;
            }
            let list = Index::parse(&layout.read(entry)?).map_err(|error| anyhow!("{error}"))?;
            let referrers = list.manifests.into_iter().map(|it| (it, Attachment::Referrer));
            layout.signatures.extend(referrers);
        }
        Ok(layout)
    }

    fn blob(&self, descriptor: &Descriptor) -> PathBuf {
        self.folder.join("blobs/sha256").join(descriptor.digest.hex())
    }

    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = self.blob(descriptor);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if Digest::of(&bytes) != descriptor.digest {
            bail!("{} is not what its name says", path.display());
        }
        Ok(bytes)
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

fn first(index: &Index) -> Result<Descriptor> {
    index.manifests.first().cloned().context("index.json lists nothing")
}

fn parse(bytes: &[u8]) -> Result<Manifest> {
    Manifest::parse(bytes).map_err(|error| anyhow!("manifest: {error}"))
}
