//! Finding what may be a signature of an image, in every place where one may be.
//!
//! 1. The referrers API; where it is missing, empty or says nothing usable,
//! 2. the fallback tag `sha256-<hex>`, an index; entries are never filtered by what the index says
//!    of them, since cosign 3 mislabels its own there, only ordered by it;
//! 3. cosign's older tag `sha256-<hex>.sig`.
//!
//! Any one valid signature is enough. The number of requests is bounded: a stranger who may push
//! can attach anything. Where the bound was reached without a valid one the answer is *cannot
//! know*, not *no*.

use std::collections::HashSet;

use hyper::StatusCode;
use hyper::header::ACCEPT;
use update_manifest::bundle::{BUNDLE_BYTES_MAX, MEDIA_BUNDLE};
use update_manifest::digest::Digest;
use update_manifest::oci::{
    Descriptor, Index, MANIFEST_BYTES_MAX, MEDIA_EMPTY, MEDIA_INDEX, Manifest,
};
use update_manifest::simple_signing::{MEDIA_SIMPLE_SIGNING, PAYLOAD_BYTES_MAX};
use update_manifest::trust::{NotVouched, TrustRoots};
use update_manifest::verified::{CANDIDATES_MAX, Candidate, Verdict, Verified, verify};

use super::error::RegistryError;
use super::headers::next_link;
use super::pull::pull_scope;
use super::session::{Registry, resolve};
use super::transport::{header, is_html};

/// Most pages of referrers read.
const PAGES_MAX: usize = 8;
/// Most requests for what referrers lists name: room for a signature behind two hundred attachments
/// that say nothing of themselves, each a manifest and a bundle.
const REQUESTS_MAX: usize = 512;

/// What the search for a signature answers.
#[derive(Debug)]
pub enum Signed {
    /// A trusted key vouches for the image.
    Yes(Verified<Digest>),
    /// None does; holds why, or nothing when there is no signature at all.
    No(Vec<NotVouched>),
    /// It could not be found out.
    CannotKnow(RegistryError),
}

/// The running count of what was looked at.
struct Search<'a> {
    subject: Digest,
    roots: &'a TrustRoots,
    /// Requests made for referrers.
    asked: usize,
    read: HashSet<Digest>,
    reasons: Vec<NotVouched>,
    /// The first thing that could not be read: if nothing valid is found, it may have been it.
    unread: Option<RegistryError>,
}

impl Registry {
    /// Whether one of `roots` signed the image `subject` in `repository`.
    pub async fn signed(&self, repository: &str, subject: Digest, roots: &TrustRoots) -> Signed {
        let mut search = Search {
            subject,
            roots,
            asked: 0,
            read: HashSet::new(),
            reasons: Vec::new(),
            unread: None,
        };
        for place in [Place::Referrers, Place::FallbackTag, Place::SignatureTag] {
            let listed = match place {
                Place::Referrers => self.referrers(repository, subject).await,
                Place::FallbackTag => self.tagged_index(repository, &subject.referrers_tag()).await,
                Place::SignatureTag => {
                    let found = self.signature_tag(repository, &mut search).await;
                    match found {
                        Ok(Some(verified)) => return Signed::Yes(verified),
                        Ok(None) => Ok(Vec::new()),
                        Err(error) => Err(error),
                    }
                }
            };
            match listed {
                Ok(listed) => {
                    if let Some(verified) =
                        self.try_referrers(repository, listed, &mut search).await
                    {
                        return Signed::Yes(verified);
                    }
                }
                Err(RegistryError::Absent(_)) => {}
                Err(error) => search.unread = search.unread.or(Some(error)),
            }
        }
        match search.unread {
            Some(error) => Signed::CannotKnow(error),
            None => Signed::No(search.reasons),
        }
    }

    /// What the referrers API lists; nothing where there is no such API.
    async fn referrers(
        &self,
        repository: &str,
        subject: Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let scope = pull_scope(repository);
        let place = format!("{}/{repository} referrers of {subject}", self.authority());
        let mut call = self.get(&format!("/v2/{repository}/referrers/{subject}"), &scope)?;
        call.headers.push((ACCEPT, MEDIA_INDEX.to_owned()));
        let mut listed = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.call(&call).await?;
            let missing = [
                StatusCode::NOT_FOUND,
                StatusCode::BAD_REQUEST,
                StatusCode::METHOD_NOT_ALLOWED,
                StatusCode::NOT_ACCEPTABLE,
                StatusCode::NOT_IMPLEMENTED,
            ];
            if missing.contains(&response.status()) {
                return Ok(listed);
            }
            if response.status() != StatusCode::OK || is_html(&response) {
                // `found` words the fault; a 404 was dealt with above.
                self.found(response, &place).await?;
                return Ok(listed);
            }
            let next = header(&response, "link")
                .and_then(next_link)
                .and_then(|target| resolve(&call.uri, target))
                .filter(|uri| uri.authority() == call.uri.authority());
            let body = self.transport.read_body(response, MANIFEST_BYTES_MAX, &place).await?;
            // An empty or unreadable 200 is how some registries say that they have no such API.
            let Ok(index) = Index::parse(&body) else { return Ok(listed) };
            listed.extend(index.manifests);
            match next {
                Some(next) => call.uri = next,
                None => return Ok(listed),
            }
        }
        Ok(listed)
    }

    async fn tagged_index(
        &self,
        repository: &str,
        tag: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let pulled = self.manifest_by(repository, tag).await?;
        // Something else under this tag is nobody's list of referrers.
        Ok(Index::parse(&pulled.bytes).map(|index| index.manifests).unwrap_or_default())
    }

    async fn try_referrers(
        &self,
        repository: &str,
        mut listed: Vec<Descriptor>,
        search: &mut Search<'_>,
    ) -> Option<Verified<Digest>> {
        listed.retain(|entry| search.read.insert(entry.digest));
        // Likely ones first, so that the bound is not eaten by others; none is left out for this.
        listed.sort_by_key(likelihood);
        for entry in listed {
            if search.asked >= REQUESTS_MAX {
                search.overflow();
                return None;
            }
            search.asked += 1;
            match self.referrer(repository, &entry, search).await {
                Ok(Some(verified)) => return Some(verified),
                Ok(None) | Err(RegistryError::Absent(_)) => {}
                Err(error) => search.unread = search.unread.take().or(Some(error)),
            }
        }
        None
    }

    async fn referrer(
        &self,
        repository: &str,
        entry: &Descriptor,
        search: &mut Search<'_>,
    ) -> Result<Option<Verified<Digest>>, RegistryError> {
        let pulled = self.manifest_by(repository, &entry.digest.to_string()).await?;
        let Ok(manifest) = Manifest::parse(&pulled.bytes) else { return Ok(None) };
        for layer in manifest.layers.iter().take(4) {
            if !layer.media_type.starts_with("application/vnd.dev.sigstore.bundle") {
                continue;
            }
            if layer.size > BUNDLE_BYTES_MAX as u64 {
                search.reasons.push(NotVouched::TooLarge(BUNDLE_BYTES_MAX));
                continue;
            }
            search.asked += 1;
            let bytes = self.small_blob(repository, layer, BUNDLE_BYTES_MAX).await?;
            if let Some(verified) = search.check(Candidate::Bundle(bytes.to_vec())) {
                return Ok(Some(verified));
            }
        }
        Ok(None)
    }

    async fn signature_tag(
        &self,
        repository: &str,
        search: &mut Search<'_>,
    ) -> Result<Option<Verified<Digest>>, RegistryError> {
        let tag = search.subject.signature_tag();
        let pulled = self.manifest_by(repository, &tag).await?;
        let manifest = match Manifest::parse(&pulled.bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                search.reasons.push(NotVouched::Malformed(error.to_string()));
                return Ok(None);
            }
        };
        for (count, layer) in manifest.layers.iter().enumerate() {
            if count >= CANDIDATES_MAX {
                search.overflow();
                break;
            }
            if layer.media_type != MEDIA_SIMPLE_SIGNING {
                continue;
            }
            if layer.size > PAYLOAD_BYTES_MAX as u64 {
                search.reasons.push(NotVouched::TooLarge(PAYLOAD_BYTES_MAX));
                continue;
            }
            let payload = self.small_blob(repository, layer, PAYLOAD_BYTES_MAX).await?;
            let candidate = Candidate::Simple(Box::new(layer.clone()), payload.to_vec());
            if let Some(verified) = search.check(candidate) {
                return Ok(Some(verified));
            }
        }
        Ok(None)
    }
}

#[derive(Clone, Copy)]
enum Place {
    Referrers,
    FallbackTag,
    SignatureTag,
}

impl Search<'_> {
    fn check(&mut self, candidate: Candidate) -> Option<Verified<Digest>> {
        match verify(self.subject, &[candidate], self.roots) {
            Verdict::Yes(verified) => Some(verified),
            Verdict::No(reasons) => {
                self.reasons.extend(reasons);
                None
            }
        }
    }

    fn overflow(&mut self) {
        let what = format!(
            "{} has more attachments than are looked at, and none of the first is a valid signature",
            self.subject
        );
        self.unread = self.unread.take().or(Some(RegistryError::cannot_know(what)));
    }
}

/// 0 for what says it is a bundle, 1 for what says nothing or is known to be mislabelled, 2 else.
fn likelihood(entry: &Descriptor) -> u8 {
    match entry.artifact_type.as_deref() {
        Some(kind) if kind == MEDIA_BUNDLE => 0,
        None => 1,
        Some(kind) if kind == MEDIA_EMPTY => 1,
        Some(_) => 2,
    }
}
