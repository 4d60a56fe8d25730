//! Reading a part of a large blob, from registries that do ranges well, badly or not at all.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use hyper::{Response, header::HeaderName};
use update_manifest::oci::Descriptor;

use super::error::RegistryError;
use super::headers::content_range;
use super::pull::pull_scope;
use super::session::Registry;
use super::transport::{check_identity, header, is_html, next_piece};

/// The bytes of one blob from one offset to another, in order.
pub struct BlobStream {
    body: Incoming,
    /// Bytes still to be passed over.
    skip: u64,
    /// Bytes still to be given out.
    left: u64,
    stall: std::time::Duration,
    place: String,
}

impl Registry {
    /// Opens `blob` at byte `from`, up to `until` (exclusive), by a closed range. Where the server
    /// sends the whole blob instead, the part before `from` is passed over; where it does no ranges,
    /// or answers with another one than was asked for, it is asked once more without a range.
    ///
    /// # Errors
    /// *Cannot know* when that answer is of no use either: a fault of the server's. None of the bytes
    /// of a wrong range are given out.
    pub async fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        from: u64,
        until: u64,
    ) -> Result<BlobStream, RegistryError> {
        let mut place = format!("{}/{repository} {}", self.authority(), blob.digest);
        if from >= until || until > blob.size {
            return Err(RegistryError::Corrupt(format!("{place}: no bytes {from}-{until} in it")));
        }
        let scope = pull_scope(repository);
        let mut call = self.get(&format!("/v2/{repository}/blobs/{}", blob.digest), &scope)?;
        call.headers.push((RANGE, format!("bytes={from}-{}", until - 1)));
        let mut response = self.call(&call).await?;
        let wrong = match response.status() {
            // The range lies inside the blob, so this server does no ranges.
            StatusCode::RANGE_NOT_SATISFIABLE => Some("takes no range".to_owned()),
            StatusCode::PARTIAL_CONTENT => part(&response, blob.size, from, until).err(),
            _ => None,
        };
        if let Some(why) = wrong {
            place = format!("{place} ({why})");
            call.headers.clear();
            response = self.call(&call).await?;
            response = self.found(response, &place).await?;
        } else if response.status() != StatusCode::PARTIAL_CONTENT {
            response = self.found(response, &place).await?;
        }
        let (skip, left) = part(&response, blob.size, from, until)
            .map_err(|why| RegistryError::cannot_know(format!("{place}: {why}")))?;
        check_identity(&response, &place)?;
        Ok(BlobStream {
            body: response.into_body(),
            skip,
            left,
            stall: self.transport.patience.stall,
            place,
        })
    }
}

/// How many bytes of this answer come before the asked ones, and how many asked ones follow.
fn part(
    response: &Response<Incoming>,
    size: u64,
    from: u64,
    until: u64,
) -> Result<(u64, u64), String> {
    let text = |name: HeaderName| header(response, name.as_str()).unwrap_or_default();
    if is_html(response) {
        return Err("answered with a web page".into());
    }
    if response.status() == StatusCode::OK {
        let length = text(CONTENT_LENGTH).parse::<u64>().ok();
        return match length {
            Some(length) if length != size => {
                Err(format!("answered with {length} bytes instead of {size}"))
            }
            _ => Ok((from, until - from)),
        };
    }
    if text(CONTENT_TYPE).to_ascii_lowercase().starts_with("multipart/") {
        return Err("answered one range with several parts".into());
    }
    let range = content_range(text(CONTENT_RANGE))
        .ok_or("answered a range without a usable Content-Range")?;
    let fits =
        range.first <= from && from <= range.last && range.total.is_none_or(|total| total == size);
    if !fits {
        return Err(format!(
            "answered with bytes {}-{} instead of {from}-{}",
            range.first,
            range.last,
            until - 1
        ));
    }
    // A server may send less than was asked for; the caller asks again for the rest.
    let end = range.last.saturating_add(1).min(until);
    Ok((from - range.first, end - from))
}

impl BlobStream {
    /// The next bytes; `None` at the end of what the server was willing to send in one answer.
    ///
    /// # Errors
    /// *Cannot know* when the stream breaks off or stalls; bytes given out before are good to keep.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.left > 0 {
            let piece = next_piece(&mut self.body, self.stall, &self.place).await?;
            let Some(mut piece) = piece else {
                return Err(RegistryError::cannot_know(format!(
                    "{}: ended {} bytes early",
                    self.place, self.left
                )));
            };
            let over = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
            self.skip -= over as u64;
            let _ = piece.split_to(over); // passed over on purpose
            let keep = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
            piece.truncate(keep);
            self.left -= keep as u64;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}
