//! One HTTP request in bounded time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::RegistryError;
use super::names::Names;
use crate::clock::{now_s, utc};

/// The body of a request.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// Where Debian keeps the certificates of well-known authorities.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How long each part of a request may take, and how often it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the request to the answer's headers.
    pub headers: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// Tries of one request, the first included.
    pub tries: u32,
    /// The first wait between tries; doubles with each.
    pub first_wait: Duration,
    /// Longest wait that is sat out here; a longer `Retry-After` is handed to the caller.
    pub longest_wait: Duration,
}

impl Patience {
    /// For the field: a stall ends within half a minute, a dead registry within two.
    pub const FIELD: Patience = Patience {
        connect: Duration::from_secs(10),
        headers: Duration::from_secs(30),
        stall: Duration::from_secs(30),
        tries: 4,
        first_wait: Duration::from_millis(500),
        longest_wait: Duration::from_secs(20),
    };
}

/// An HTTP/1.1 client with our trust and our patience. Follows nothing by itself.
#[derive(Clone)]
pub struct Transport {
    client: Client<HttpsConnector<HttpConnector<Names>>, Body>,
    /// The waits in force.
    pub patience: Patience,
}

impl Transport {
    /// A client for the registry at `authority` (`host:port`), which trusts the system's certificate
    /// authorities and those in `extra_ca` (PEM).
    ///
    /// # Errors
    /// One line when `extra_ca` holds no certificate.
    pub fn new(
        authority: &str,
        extra_ca: Option<&[u8]>,
        patience: Patience,
    ) -> Result<Transport, String> {
        let mut roots = rustls::RootCertStore::empty();
        if let Ok(pem) = std::fs::read(SYSTEM_CERTIFICATES) {
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates);
        }
        if let Some(pem) = extra_ca {
            let certificates: Vec<_> =
                CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err("the CA file holds no PEM certificate".into());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Names::new(authority));
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(patience.connect));
        tcp.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Transport { client, patience })
    }

    /// Sends `request`; the answer's headers must arrive within `limit`.
    ///
    /// # Errors
    /// One line that says what failed, without the address: the caller knows it.
    pub async fn send(
        &self,
        request: Request<Body>,
        limit: Duration,
    ) -> Result<Response<Incoming>, String> {
        match tokio::time::timeout(limit, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if is_about_time(&error) => Err(format!(
                "{}: is the clock not set? It says {}; look at the time service",
                chain(&error),
                utc(now_s())
            )),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        }
    }

    /// Reads a whole body of at most `bytes_max`.
    ///
    /// # Errors
    /// `place` names what was read in the message. A body that stalls or breaks off is *cannot
    /// know*, one that is too large is *corrupt*.
    pub async fn read_body(
        &self,
        response: Response<Incoming>,
        bytes_max: usize,
        place: &str,
    ) -> Result<Bytes, RegistryError> {
        check_identity(&response, place)?;
        let mut body = response.into_body();
        let mut all = BytesMut::new();
        while let Some(piece) = next_piece(&mut body, self.patience.stall, place).await? {
            if all.len() + piece.len() > bytes_max {
                return Err(RegistryError::Corrupt(format!(
                    "{place}: answer is larger than {bytes_max} bytes"
                )));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

/// The next piece of a body, `None` at its end.
///
/// # Errors
/// *Cannot know* when it breaks off or stalls longer than `stall`.
pub async fn next_piece(
    body: &mut Incoming,
    stall: Duration,
    place: &str,
) -> Result<Option<Bytes>, RegistryError> {
    loop {
        let frame = tokio::time::timeout(stall, body.frame()).await.map_err(|_| {
            RegistryError::cannot_know(format!("{place}: no data for {} s", stall.as_secs()))
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                let cause = chain(&error);
                return Err(RegistryError::cannot_know(format!("{place}: broke off: {cause}")));
            }
            // Trailers carry nothing for us.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Refuses an answer that something on the way has compressed although we asked for none: its
/// bytes are not those that a digest names.
pub(crate) fn check_identity(
    response: &Response<Incoming>,
    place: &str,
) -> Result<(), RegistryError> {
    let coding = header(response, CONTENT_ENCODING.as_str()).unwrap_or("identity");
    if coding.eq_ignore_ascii_case("identity") {
        return Ok(());
    }
    Err(RegistryError::cannot_know(format!(
        "{place}: answered with {coding:?} encoding, which was not asked for; look at the proxy"
    )))
}

/// A header's value as text.
pub(crate) fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Whether this is a page for people: a login portal or a proxy's error page, not a registry.
pub(crate) fn is_html<B>(response: &Response<B>) -> bool {
    header(response, CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("html"))
}

/// A body of no bytes.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body of these bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Whether this is a certificate that is not valid yet, or no longer: as a rule, of a machine whose
/// clock is wrong.
fn is_about_time(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(rustls::Error::InvalidCertificate(why)) = cause.downcast_ref() {
            return matches!(
                why,
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
            );
        }
        // What an `io::Error` wraps is not its source, but stands for it.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = wrapped.map_or_else(|| cause.source(), |wrapped| Some(wrapped));
    }
    false
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ").chars().take(300).collect()
}
