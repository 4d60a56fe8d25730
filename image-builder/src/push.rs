//! From an OCI layout to a registry: blobs, the image by digest, its signatures, and last the tag,
//! so that whoever sees the tag finds the signature.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use update_manifest::digest::Digest;
use update_manifest::oci::MEDIA_MANIFEST;
use updater::registry::push::Attachment;
use updater::registry::reference::Target;
use updater::registry::transport::Patience;
use updater::registry::{Reference, Registry, session};

use crate::layout::{Found, Layout};

/// Whether the registry speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTPS, as it should be.
    Tls,
    /// HTTP, for registries on the same machine.
    Plain,
}

/// Pushes the image in the layout `folder` (see [`Layout::open`]), with its signatures, to
/// `reference`; its digest.
/// `progress` is told how much of the layer is sent and how much there is, in bytes.
///
/// # Errors
/// The layout is not one of ours, or the registry refuses or cannot be reached.
pub fn push(
    folder: &Path,
    reference: &str,
    scheme: Scheme,
    credentials: Option<session::Credentials>,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
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
    let layout = Layout::open(folder)?;
    runtime.block_on(send(&layout, &registry, &reference.repository, tag, progress))
}

async fn send(
    layout: &Layout,
    registry: &Registry,
    repository: &str,
    tag: &str,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Digest> {
    let (image, manifest, bytes) = (&layout.image, &layout.manifest, &layout.bytes);
    let layer = manifest.layers.first().context("image without a layer")?;
    registry.push_blob(repository, &layout.read(&manifest.config)?).await?;
    let size = layer.size;
    let progress = move |sent| progress(sent, size);
    registry.push_blob_file(repository, layer, &layout.blob(layer), progress).await?;
    let by_digest = image.digest.to_string();
    registry.push_manifest(repository, &by_digest, MEDIA_MANIFEST, bytes).await?;
    for (artifact, found) in layout.signatures()? {
        let attachment = match found {
            Found::Tag => Attachment::SignatureTag,
            Found::Referrers => Attachment::Referrer,
        };
        registry.push_signature(repository, image.digest, &artifact, attachment).await?;
    }
    Ok(registry.push_manifest(repository, tag, MEDIA_MANIFEST, bytes).await?)
}
