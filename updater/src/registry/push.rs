//! Writing to a registry: blobs, manifests, and signatures attached to them.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Method, Request, Response, StatusCode, Uri};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use update_manifest::digest::Digest;
use update_manifest::oci::{Descriptor, MEDIA_INDEX, MEDIA_MANIFEST};
use update_manifest::sign::{SignatureArtifact, describe, merge_into_index};

use super::error::RegistryError;
use super::session::{Call, Registry, origin, resolve};
use super::transport::{Body, header};

/// A registry may take this long to store what it was sent.
const STORE_LIMIT: Duration = Duration::from_secs(600);
/// Size of the pieces in which a file is sent, in bytes.
const PIECE: usize = 256 << 10;
/// Tries to merge an entry into a fallback index that somebody else writes at the same time.
const MERGE_TRIES: u32 = 4;

fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

impl Registry {
    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// As every question to a registry.
    pub async fn has_blob(&self, repository: &str, digest: Digest) -> Result<bool, RegistryError> {
        let scope = push_scope(repository);
        let mut call = self.get(&format!("/v2/{repository}/blobs/{digest}"), &scope)?;
        call.method = Method::HEAD;
        match self.call(&call).await?.status() {
            StatusCode::OK => Ok(true),
            // Where it lies elsewhere: registries send nobody to a blob that they do not have, and
            // a storage server may answer 400 to HEAD.
            StatusCode::FOUND | StatusCode::SEE_OTHER | StatusCode::TEMPORARY_REDIRECT => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(self.unexpected("asking for a blob", repository, status)),
        }
    }

    /// Puts a blob that is in memory; nothing is sent if it is there already.
    ///
    /// # Errors
    /// As every request to a registry.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        if !self.has_blob(repository, digest).await? {
            let body = super::transport::full(Bytes::copy_from_slice(bytes));
            self.upload(repository, digest, bytes.len() as u64, body).await?;
        }
        Ok(digest)
    }

    /// Puts a blob from a file, in bounded memory. `progress` is told the bytes sent so far.
    ///
    /// # Errors
    /// As every request to a registry; a file that cannot be read is *corrupt*, since the registry
    /// then refuses what arrived of it.
    pub async fn push_blob_file(
        &self,
        repository: &str,
        blob: &Descriptor,
        path: &Path,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        if self.has_blob(repository, blob.digest).await? {
            progress(blob.size);
            return Ok(());
        }
        let shown = path.display().to_string();
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| RegistryError::Corrupt(format!("{shown}: {error}")))?;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let sent = tokio::spawn(send_file(file, sender, progress));
        let pieces = Pieces { receiver };
        let body = StreamBody::new(pieces).boxed();
        let result = self.upload(repository, blob.digest, blob.size, body).await;
        sent.abort();
        result
    }

    async fn upload(
        &self,
        repository: &str,
        digest: Digest,
        size: u64,
        body: Body,
    ) -> Result<(), RegistryError> {
        let scope = push_scope(repository);
        let start = Call {
            method: Method::POST,
            uri: self.uri(&format!("/v2/{repository}/blobs/uploads/"))?,
            headers: vec![(CONTENT_LENGTH, "0".into())],
            body: Bytes::new(),
            scope: &scope,
            limit: self.transport.patience.headers,
        };
        let response = self.call(&start).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.unexpected("starting an upload", repository, response.status()));
        }
        let to = header(&response, LOCATION.as_str()).and_then(|to| resolve(&start.uri, to));
        let to = to.and_then(|to| with_digest(&to, digest)).ok_or_else(|| {
            RegistryError::cannot_know(format!("{}: upload without an address", self.authority()))
        })?;
        let home = origin(&start.uri) == origin(&to);
        let mut request = Request::put(&to)
            .header(CONTENT_LENGTH, size)
            .header(CONTENT_TYPE, "application/octet-stream");
        if let (true, Some(token)) = (home, self.token(&scope)) {
            request = request.header(AUTHORIZATION, token);
        }
        let place = format!("{}/{repository} {digest}", self.authority());
        let request = request.body(body).map_err(|_| {
            RegistryError::cannot_know(format!("{place}: malformed upload address"))
        })?;
        let response = self
            .transport
            .send(request, STORE_LIMIT)
            .await
            .map_err(|error| RegistryError::cannot_know(format!("{place}: upload: {error}")))?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            status => Err(self.unexpected("storing a blob", repository, status)),
        }
    }

    /// Puts a manifest or an index under `target`, a tag or a digest.
    ///
    /// # Errors
    /// As every request to a registry.
    pub async fn push_manifest(
        &self,
        repository: &str,
        target: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        self.put_manifest(repository, target, media_type, bytes).await?;
        Ok(Digest::of(bytes))
    }

    async fn put_manifest(
        &self,
        repository: &str,
        target: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Response<Incoming>, RegistryError> {
        let scope = push_scope(repository);
        let call = Call {
            method: Method::PUT,
            uri: self.uri(&format!("/v2/{repository}/manifests/{target}"))?,
            headers: vec![(CONTENT_TYPE, media_type.to_owned())],
            body: Bytes::copy_from_slice(bytes),
            scope: &scope,
            limit: STORE_LIMIT,
        };
        let response = self.call(&call).await?;
        match response.status() {
            StatusCode::CREATED => Ok(response),
            status => Err(self.unexpected("storing a manifest", repository, status)),
        }
    }

    /// Attaches a signature to `image`: as a referrer when its manifest has a subject (and in the
    /// fallback index where the registry does not list referrers itself), else under the `.sig`
    /// tag.
    ///
    /// # Errors
    /// As every request to a registry; *corrupt* when the fallback tag holds something else.
    pub async fn push_signature(
        &self,
        repository: &str,
        image: Digest,
        signature: &SignatureArtifact,
        is_referrer: Attachment,
    ) -> Result<(), RegistryError> {
        self.push_blob(repository, &signature.config).await?;
        self.push_blob(repository, &signature.layer).await?;
        let digest = signature.descriptor.digest.to_string();
        match is_referrer {
            Attachment::SignatureTag => {
                let tag = image.signature_tag();
                self.put_manifest(repository, &tag, MEDIA_MANIFEST, &signature.manifest).await?;
                Ok(())
            }
            Attachment::Referrer => {
                let response = self
                    .put_manifest(repository, &digest, MEDIA_MANIFEST, &signature.manifest)
                    .await?;
                if response.headers().contains_key("oci-subject") {
                    return Ok(());
                }
                self.merge(repository, image, &signature.descriptor).await
            }
        }
    }

    /// Adds `entry` to the fallback index and looks whether it stayed: tags have no locks.
    async fn merge(
        &self,
        repository: &str,
        image: Digest,
        entry: &Descriptor,
    ) -> Result<(), RegistryError> {
        let tag = image.referrers_tag();
        for _ in 0..MERGE_TRIES {
            let existing = match self.manifest_by(repository, &tag).await {
                Ok(pulled) => Some(pulled.bytes),
                Err(RegistryError::Absent(_)) => None,
                Err(error) => return Err(error),
            };
            let index = merge_into_index(existing.as_deref(), entry.clone()).map_err(|error| {
                RegistryError::Corrupt(format!(
                    "{}/{repository}:{tag} is no list of attachments: {error}",
                    self.authority()
                ))
            })?;
            self.put_manifest(repository, &tag, MEDIA_INDEX, &index).await?;
            if self.manifest_by(repository, &tag).await?.digest
                == describe(MEDIA_INDEX, &index).digest
            {
                return Ok(());
            }
        }
        Err(RegistryError::cannot_know(format!(
            "{}/{repository}:{tag} is being changed by somebody else; try again",
            self.authority()
        )))
    }

    fn unexpected(&self, what: &str, repository: &str, status: StatusCode) -> RegistryError {
        let text = format!("{}/{repository}: {what}: answered {status}", self.authority());
        match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => RegistryError::Denied(text),
            _ => RegistryError::cannot_know(text),
        }
    }
}

/// How a signature hangs on its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// By the subject of its manifest: cosign 3.
    Referrer,
    /// By a tag made of the image's digest: cosign before 3.
    SignatureTag,
}

fn with_digest(uri: &Uri, digest: Digest) -> Option<Uri> {
    let separator = if uri.query().is_some() { '&' } else { '?' };
    format!("{uri}{separator}digest={digest}").parse().ok()
}

async fn send_file(
    mut file: tokio::fs::File,
    sender: tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>,
    progress: impl Fn(u64),
) {
    let mut sent = 0;
    loop {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await;
        let (piece, done) = match read {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                sent += length as u64;
                (Ok(Bytes::from(piece)), false)
            }
            Err(error) => (Err(error), true),
        };
        // The other end is gone when the registry has refused the rest.
        if sender.send(piece).await.is_err() || done {
            return;
        }
        progress(sent);
    }
}

/// The pieces of a file as a body.
struct Pieces {
    receiver: tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>,
}

impl futures_core::Stream for Pieces {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
