//! Reading manifests and small blobs.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Response, body::Incoming};
use serde::Deserialize;
use update_manifest::digest::Digest;
use update_manifest::oci::{
    Descriptor, MANIFEST_BYTES_MAX, MEDIA_DOCKER_MANIFEST, MEDIA_INDEX, MEDIA_MANIFEST,
};

use super::error::RegistryError;
use super::reference::{Reference, Target};
use super::session::Registry;
use super::transport::{header, is_html};

/// Largest error answer read, in bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A manifest as received.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The sha256 of `bytes`, computed here.
    pub digest: Digest,
    /// What the registry says it is; for messages only.
    pub media_type: String,
    /// The raw bytes.
    pub bytes: Bytes,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
}

pub(crate) fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

impl Registry {
    /// Reads the manifest or index that `reference` points at. One request for a tag: what is
    /// verified later is what was received here, however the tag moves.
    ///
    /// # Errors
    /// [`RegistryError::Absent`] only when the registry says so in its own form.
    pub async fn manifest(&self, reference: &Reference) -> Result<Pulled, RegistryError> {
        let target = match &reference.target {
            Target::Tag(tag) => tag.clone(),
            Target::Digest(digest) => digest.to_string(),
        };
        self.manifest_by(&reference.repository, &target).await
    }

    pub(crate) async fn manifest_by(
        &self,
        repository: &str,
        target: &str,
    ) -> Result<Pulled, RegistryError> {
        let scope = pull_scope(repository);
        let mut call = self.get(&format!("/v2/{repository}/manifests/{target}"), &scope)?;
        for media in [MEDIA_MANIFEST, MEDIA_INDEX, MEDIA_DOCKER_MANIFEST] {
            call.headers.push((ACCEPT, media.to_owned()));
        }
        let place = format!("{}/{repository} {target}", self.authority());
        let response = self.call(&call).await?;
        let response = self.found(response, &place).await?;
        let media_type = header(&response, CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let named = header(&response, "docker-content-digest").map(str::to_owned);
        let bytes = self.transport.read_body(response, MANIFEST_BYTES_MAX, &place).await?;
        let digest = Digest::of(&bytes);
        if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err() {
            return Err(RegistryError::cannot_know(format!("{place}: answer is not JSON")));
        }
        if let Some(asked) = Digest::parse(target)
            && asked != digest
        {
            return Err(RegistryError::Corrupt(format!("{place}: received {digest} instead")));
        }
        // Other algorithms are passed over: only sha256 can be compared.
        let named = named.as_deref().and_then(Digest::parse);
        if let Some(named) = named
            && named != digest
        {
            return Err(RegistryError::Corrupt(format!(
                "{place}: the registry names {named}, but sent {digest}"
            )));
        }
        Ok(Pulled { digest, media_type, bytes })
    }

    /// Reads a blob of at most `bytes_max` into memory and checks it against its descriptor.
    ///
    /// # Errors
    /// [`RegistryError::Corrupt`] when the bytes are others.
    pub async fn small_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        bytes_max: usize,
    ) -> Result<Bytes, RegistryError> {
        let place = format!("{}/{repository} {}", self.authority(), blob.digest);
        if usize::try_from(blob.size).map_or(true, |size| size > bytes_max) {
            return Err(RegistryError::Corrupt(format!("{place}: larger than {bytes_max} bytes")));
        }
        let scope = pull_scope(repository);
        let call = self.get(&format!("/v2/{repository}/blobs/{}", blob.digest), &scope)?;
        let response = self.call(&call).await?;
        let response = self.found(response, &place).await?;
        let bytes = self.transport.read_body(response, bytes_max, &place).await?;
        if Digest::of(&bytes) != blob.digest {
            return Err(RegistryError::Corrupt(format!("{place}: received other bytes")));
        }
        Ok(bytes)
    }

    /// Sorts an answer to "give me this": there, not there, or nothing known.
    pub(crate) async fn found(
        &self,
        response: Response<Incoming>,
        place: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let status = response.status();
        if is_html(&response) {
            return Err(RegistryError::cannot_know(format!(
                "{place}: answered {status} with a web page; this is not a registry's answer"
            )));
        }
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => {
                let body = self.transport.read_body(response, ERROR_BYTES_MAX, place).await?;
                let answer = serde_json::from_slice::<ErrorAnswer>(&body).ok();
                let code = answer.and_then(|answer| answer.errors.into_iter().next());
                match code {
                    Some(entry)
                        if entry.code.ends_with("_UNKNOWN") || entry.code == "NOT_FOUND" =>
                    {
                        Err(RegistryError::Absent(format!("{place}: not in the registry")))
                    }
                    _ => Err(RegistryError::cannot_know(format!(
                        "{place}: answered {status}, but not in a registry's form"
                    ))),
                }
            }
            StatusCode::FORBIDDEN => Err(RegistryError::Denied(format!(
                "{place}: the registry denies access; look at username and password_file"
            ))),
            status => Err(RegistryError::cannot_know(format!("{place}: answered {status}"))),
        }
    }
}
