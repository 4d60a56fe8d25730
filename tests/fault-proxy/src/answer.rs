//! One answer.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::faults::{DigestHeader, Faults, Gzip, Login, Ranges, Redirect, Referrers};
use crate::proxy::{Context, Seen};
use crate::referrers::digest;

/// How far off a wrong range is, in bytes.
const OFF_BY: u64 = 1000;
/// Between the last bytes and a break: without it, bytes in the server's buffer would be lost, and
/// how much a client gets would be left to chance.
const FLUSH: Duration = Duration::from_millis(100);
/// Blobs above this many bytes are layers.
const LAYER_MIN: usize = 64 << 10;

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Breaks,
    Stalls,
}

/// A body that may break off or fall silent.
pub(crate) struct Cut {
    bytes: Bytes,
    end: End,
    is_chunked: bool,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.bytes.is_empty() {
            return match self.end {
                End::Whole => Poll::Ready(None),
                // Nobody wakes it: the connection ends when the client goes, or with the proxy.
                End::Stalls => Poll::Pending,
                End::Breaks => {
                    let begin = || Box::pin(tokio::time::sleep(FLUSH));
                    ready!(self.pause.get_or_insert_with(begin).as_mut().poll(context));
                    self.end = End::Whole;
                    Poll::Ready(Some(Err(std::io::Error::other("cut"))))
                }
            };
        }
        let length = self.bytes.len().min(64 << 10);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.end == End::Whole
    }

    fn size_hint(&self) -> SizeHint {
        if self.end != End::Whole || self.is_chunked {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.bytes.len() as u64)
        }
    }
}

type Answer = Response<Cut>;

/// Answers `request`; `is_storage` is the server that blobs are redirected to.
pub(crate) async fn answer(
    context: &Context,
    request: Request<Incoming>,
    is_storage: bool,
) -> Result<Answer, Infallible> {
    let faults = note(context, &request, is_storage);
    let answered = if is_storage {
        storage(context, request, &faults).await
    } else {
        front(context, request, &faults).await
    };
    Ok(answered.unwrap_or_else(|| plain(502, "the registry behind the proxy did not answer")))
}

fn note(context: &Context, request: &Request<Incoming>, at_storage: bool) -> Faults {
    let mut shared = context.shared();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        range: header("range").map(str::to_owned),
        has_login: header("authorization").is_some(),
        at_storage,
    };
    shared.seen.push(seen);
    shared.faults.clone()
}

async fn front(context: &Context, request: Request<Incoming>, faults: &Faults) -> Option<Answer> {
    let path = request.uri().path().to_owned();
    if let Some(refused) = refuse(context, &path, faults).or_else(|| login(&request, faults)) {
        return Some(refused);
    }
    if request.method() == Method::GET
        && path.contains("/referrers/")
        && let Some(answer) = referrers(context, &path, faults)
    {
        return Some(answer);
    }
    let is_get = request.method() == Method::GET;
    let is_read = is_get || request.method() == Method::HEAD;
    let is_blob = is_read && path.contains("/blobs/sha256:");
    if is_blob && faults.redirect != Redirect::None {
        return redirect(context, request, faults).await;
    }
    if is_blob && is_get {
        return blob(context, request, faults).await;
    }
    let is_manifest = path.contains("/manifests/");
    let is_put = request.method() == Method::PUT;
    let takes_gzip = takes_gzip(&request);
    let (answer, sent) = forward(context, request, None).await?;
    let (mut parts, mut bytes) = (answer.headers().clone(), answer.body().clone());
    if is_manifest
        && is_put
        && answer.status() == StatusCode::CREATED
        && faults.referrers == Referrers::Served
        && let Some(subject) = context.shared().store.pushed(&sent)
    {
        set(&mut parts, "oci-subject", &subject);
    }
    if is_manifest && is_get && answer.status() == StatusCode::OK {
        bytes = manifest(&path, bytes, &mut parts, faults);
        bytes = zip(bytes, &mut parts, faults, takes_gzip);
    }
    Some(build(answer.status(), parts, bytes, faults.chunked, End::Whole))
}

fn manifest(path: &str, bytes: Bytes, headers: &mut HeaderMap, faults: &Faults) -> Bytes {
    let mut bytes = bytes.to_vec();
    if faults.alter_manifest && !path.contains("/manifests/sha256") {
        bytes.push(b'\n');
        set(headers, "docker-content-digest", &digest(&bytes));
    }
    if faults.pad_manifest > 0 {
        bytes.resize(bytes.len() + faults.pad_manifest, b' ');
        set(headers, "docker-content-digest", &digest(&bytes));
    }
    match faults.digest_header {
        DigestHeader::Honest => {}
        DigestHeader::Missing => {
            headers.remove("docker-content-digest");
        }
        DigestHeader::Wrong => set(headers, "docker-content-digest", &digest(b"other")),
    }
    bytes.into()
}

fn takes_gzip(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get("accept-encoding").and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("gzip"))
}

fn zip(bytes: Bytes, headers: &mut HeaderMap, faults: &Faults, takes_gzip: bool) -> Bytes {
    let zips = match faults.gzip {
        Gzip::Never => false,
        Gzip::Accepted => takes_gzip,
        Gzip::Always => true,
    };
    if !zips {
        return bytes;
    }
    set(headers, "content-encoding", "gzip");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(&bytes);
    encoder.finish().unwrap_or_default().into()
}

/// Asks for a login where the request has none, and gives out tokens. What a login says is not
/// looked at.
fn login(request: &Request<Incoming>, faults: &Faults) -> Option<Answer> {
    if faults.login == Login::Bearer && request.uri().path() == "/token" {
        return Some(plain(200, "{\"token\":\"t0ken\"}"));
    }
    if faults.login == Login::None || request.headers().contains_key("authorization") {
        return None;
    }
    let host = request.headers().get("host").and_then(|value| value.to_str().ok());
    let challenge = match faults.login {
        Login::Bearer => {
            format!("Bearer realm=\"http://{}/token\",service=\"test\"", host.unwrap_or_default())
        }
        Login::Basic | Login::None => "Basic realm=\"test\"".to_owned(),
    };
    let mut answer = plain(401, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
    set(answer.headers_mut(), "www-authenticate", &challenge);
    Some(answer)
}

fn refuse(context: &Context, path: &str, faults: &Faults) -> Option<Answer> {
    let refusal = faults.refusal.as_ref().filter(|refusal| path.contains(&refusal.path))?;
    let mut shared = context.shared();
    if refusal.times > 0 && shared.refused >= refusal.times {
        return None;
    }
    shared.refused += 1;
    let mut answer = if refusal.html {
        html(refusal.status)
    } else {
        plain(refusal.status, "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\"}]}")
    };
    if let Some(wait) = &refusal.retry_after {
        set(answer.headers_mut(), "retry-after", wait);
    }
    Some(answer)
}

fn referrers(context: &Context, path: &str, faults: &Faults) -> Option<Answer> {
    let subject = path.rsplit('/').next().unwrap_or_default();
    let shared = context.shared();
    let index = match faults.referrers {
        Referrers::Honest => return None,
        Referrers::Served => shared.store.index(subject, faults.crowd),
        Referrers::Empty => shared.store.index("", 0),
        Referrers::NotJson => return Some(plain(200, "not here")),
        Referrers::Html => return Some(html(200)),
    };
    let mut answer = plain(200, "");
    *answer.body_mut() = whole(index.into());
    set(answer.headers_mut(), "content-type", "application/vnd.oci.image.index.v1+json");
    Some(answer)
}

/// Sends a reader of a blob elsewhere; as registries do, only to what there is.
async fn redirect(
    context: &Context,
    request: Request<Incoming>,
    faults: &Faults,
) -> Option<Answer> {
    let path = request.uri().path().to_owned();
    let hop = request.uri().query().and_then(|query| query.strip_prefix("hop=")?.parse().ok());
    let hop: u32 = hop.unwrap_or(0);
    let to = match faults.redirect {
        _ if hop < faults.hops => format!("{path}?hop={}", hop + 1),
        Redirect::Loop => format!("{path}?again"),
        Redirect::LinkLocal => format!("http://169.254.169.254{path}"),
        Redirect::LinkLocalName => format!("http://2852039166{path}"),
        Redirect::Storage | Redirect::Expiring | Redirect::None => {
            format!("http://{}{path}?signature=secret", context.storage)
        }
    };
    if request.method() == Method::HEAD {
        let (answer, _) = forward(context, request, None).await?;
        if answer.status() != StatusCode::OK {
            return Some(plain(answer.status().as_u16(), ""));
        }
    }
    let mut answer = plain(307, "");
    set(answer.headers_mut(), "location", &to);
    Some(answer)
}

/// A storage server: takes signed addresses and nothing else.
async fn storage(context: &Context, request: Request<Incoming>, faults: &Faults) -> Option<Answer> {
    if request.method() == Method::HEAD || request.headers().contains_key("authorization") {
        return Some(plain(400, "only signed addresses are taken"));
    }
    if faults.redirect == Redirect::Expiring {
        let mut shared = context.shared();
        shared.expired += 1;
        if shared.expired.is_multiple_of(2) {
            return Some(plain(403, "signature has expired"));
        }
    }
    blob(context, request, faults).await
}

async fn blob(context: &Context, request: Request<Incoming>, faults: &Faults) -> Option<Answer> {
    let takes_gzip = takes_gzip(&request);
    let asked = request.headers().get("range").and_then(|value| value.to_str().ok());
    let range = asked.and_then(parse_range);
    let is_open = asked.is_some_and(|asked| asked.ends_with('-'));
    let refused = match faults.ranges {
        Ranges::Refuse416 => asked.is_some(),
        Ranges::Refuse416Open => is_open,
        _ => false,
    };
    if refused {
        return Some(plain(416, ""));
    }
    let wanted = match (faults.ranges, range) {
        (Ranges::Whole200, _) | (_, None) => None,
        (Ranges::Other | Ranges::OtherAlways, Some((from, until))) => Some((from + OFF_BY, until)),
        (Ranges::Earlier, Some((from, until))) => Some((from.saturating_sub(OFF_BY), until)),
        (Ranges::Half, Some((from, until))) => Some((from, from + (until - from) / 2)),
        (_, range) => range,
    };
    let (answer, _) = forward(context, request, Some(wanted)).await?;
    let mut headers = answer.headers().clone();
    let mut bytes = answer.body().clone();
    let mut status = answer.status();
    if faults.ranges == Ranges::OtherAlways && status == StatusCode::OK && bytes.len() > LAYER_MIN {
        status = StatusCode::PARTIAL_CONTENT;
        set(&mut headers, "content-range", &format!("bytes 0-{}/{}", LAYER_MIN, bytes.len()));
        bytes.truncate(LAYER_MIN + 1);
    }
    if faults.ranges == Ranges::StripAcceptRanges {
        headers.remove("accept-ranges");
    }
    if status == StatusCode::PARTIAL_CONTENT {
        match faults.ranges {
            Ranges::NoHeader => {
                headers.remove("content-range");
            }
            Ranges::WrongHeader => set(&mut headers, "content-range", "bytes 7-8/9"),
            Ranges::Multipart => bytes = multipart(&mut headers, &bytes),
            _ => {}
        }
    }
    // Layers only: small blobs are configs and signatures, which are checked whole.
    let is_layer = bytes.len() > LAYER_MIN;
    if faults.alter_blob && is_layer {
        bytes = altered(&bytes);
    }
    if faults.truncate_blob > 0 && is_layer {
        let keep = (bytes.len() as u64).saturating_sub(faults.truncate_blob);
        bytes.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
    if !is_layer && status == StatusCode::OK {
        bytes = zip(bytes, &mut headers, faults, takes_gzip);
    }
    let end = cut(context, &mut bytes, faults);
    Some(build(status, headers, bytes, faults.chunked, end))
}

fn altered(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

fn cut(context: &Context, bytes: &mut Bytes, faults: &Faults) -> End {
    let Some(after) = faults.cut_after.and_then(|after| usize::try_from(after).ok()) else {
        return End::Whole;
    };
    let mut shared = context.shared();
    if bytes.len() <= after || faults.cuts > 0 && shared.cut >= faults.cuts {
        return End::Whole;
    }
    shared.cut += 1;
    bytes.truncate(after);
    if faults.stalls { End::Stalls } else { End::Breaks }
}

fn multipart(headers: &mut HeaderMap, bytes: &Bytes) -> Bytes {
    let range = headers.remove("content-range");
    let range = range.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    set(headers, "content-type", "multipart/byteranges; boundary=B");
    let mut body = format!("--B\r\nContent-Range: {range}\r\n\r\n").into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--B--\r\n");
    body.into()
}

fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (from, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((from.parse().ok()?, last.parse().ok()?))
}

/// Asks the registry. `range` replaces the request's own, where it is given. Returns the answer
/// and the body that was sent.
async fn forward(
    context: &Context,
    request: Request<Incoming>,
    range: Option<Option<(u64, u64)>>,
) -> Option<(Response<Bytes>, Bytes)> {
    let (mut parts, body) = request.into_parts();
    let sent = body.collect().await.ok()?.to_bytes();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{}{path}", context.upstream).parse().ok()?;
    // The registry makes its own addresses of the host that it was asked by, so leave that.
    parts.headers.remove("content-length");
    parts.headers.remove("transfer-encoding");
    if let Some(range) = range {
        parts.headers.remove("range");
        if let Some((from, last)) = range {
            set(&mut parts.headers, "range", &format!("bytes={from}-{last}"));
        }
    }
    let request = Request::from_parts(parts, Full::new(sent.clone()));
    let answer = context.client.request(request).await.ok()?;
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.ok()?.to_bytes();
    Some((Response::from_parts(parts, bytes), sent))
}

fn build(
    status: StatusCode,
    mut headers: HeaderMap,
    bytes: Bytes,
    is_chunked: bool,
    end: End,
) -> Answer {
    let length = headers.remove("content-length");
    headers.remove("transfer-encoding");
    headers.remove("connection");
    let mut answer = Response::new(Cut { bytes, end, is_chunked, pause: None });
    // A body that breaks off was announced whole; an answer to HEAD announces what it does not send.
    if let Some(length) = length.filter(|_| end != End::Whole || answer.body().bytes.is_empty()) {
        headers.insert("content-length", length);
    }
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

fn plain(status: u16, text: &str) -> Answer {
    let mut answer = Response::new(whole(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    set(answer.headers_mut(), "content-type", "application/json");
    answer
}

fn html(status: u16) -> Answer {
    let mut answer = plain(status, "<html><body>Please log in to the network</body></html>");
    set(answer.headers_mut(), "content-type", "text/html; charset=utf-8");
    answer
}

fn whole(bytes: Bytes) -> Cut {
    Cut { bytes, end: End::Whole, is_chunked: false, pause: None }
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
