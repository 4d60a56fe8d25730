//! Requests to one registry: tokens, redirects, retries.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;

use super::error::RegistryError;
use super::headers::{self, Challenge};
use super::names;
use super::transport::{Body, Patience, Transport, empty, full, header};

/// Most redirects followed for one request.
const REDIRECTS_MAX: u32 = 5;
/// Largest answer of a token service, in bytes.
const TOKEN_BYTES_MAX: usize = 64 << 10;
const AGENT: &str = concat!("bascule/", env!("CARGO_PKG_VERSION"));

/// A user name and a password. Never printed.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or long-lived token.
    pub password: String,
}

/// How a registry is reached.
#[derive(Clone)]
pub struct Access {
    /// Without TLS; only for registries that the configuration names.
    pub plain_http: bool,
    /// Who we are, if the registry wants to know.
    pub credentials: Option<Credentials>,
    /// Certificates of authorities trusted beside the system's, PEM.
    pub extra_ca: Option<Vec<u8>>,
    /// Waits and retries.
    pub patience: Patience,
}

/// A registry, with the tokens it gave us.
pub struct Registry {
    pub(crate) transport: Transport,
    authority: String,
    plain_http: bool,
    credentials: Option<Credentials>,
    /// Value of `Authorization`, by scope.
    tokens: Mutex<HashMap<String, String>>,
}

/// One request, before tokens and redirects.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub uri: Uri,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Bytes,
    /// What a token must allow.
    pub scope: &'a str,
    /// The answer's headers must arrive within this.
    pub limit: Duration,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Registry {
    /// The registry at `authority` (`host:port`).
    ///
    /// # Errors
    /// One line when the extra certificates cannot be read.
    pub fn new(authority: &str, access: Access) -> Result<Registry, String> {
        Ok(Registry {
            transport: Transport::new(authority, access.extra_ca.as_deref(), access.patience)?,
            authority: authority.to_owned(),
            plain_http: access.plain_http,
            credentials: access.credentials,
            tokens: Mutex::new(HashMap::new()),
        })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The waits in force.
    #[must_use]
    pub fn patience(&self) -> Patience {
        self.transport.patience
    }

    pub(crate) fn uri(&self, path: &str) -> Result<Uri, RegistryError> {
        let scheme = if self.plain_http { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.authority)
            .parse()
            .map_err(|_| RegistryError::cannot_know(format!("{}: no such address", self.authority)))
    }

    pub(crate) fn get<'a>(&self, path: &str, scope: &'a str) -> Result<Call<'a>, RegistryError> {
        Ok(Call {
            method: Method::GET,
            uri: self.uri(path)?,
            headers: Vec::new(),
            body: Bytes::new(),
            scope,
            limit: self.transport.patience.headers,
        })
    }

    /// Forgets the tokens, so that the next request asks for new ones.
    pub(crate) fn forget_tokens(&self) {
        if let Ok(mut tokens) = self.tokens.lock() {
            tokens.clear();
        }
    }

    /// Makes the call, again after a wait while the server says that it cannot now.
    ///
    /// # Errors
    /// Everything but an answer below 500 that is no redirect of a GET, no 401 and no 429.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Response<Incoming>, RegistryError> {
        let patience = self.transport.patience;
        let mut wait = patience.first_wait;
        let mut attempt = 1;
        loop {
            let error = match self.call_once(call).await {
                Err(error @ RegistryError::CannotKnow { .. }) => error,
                settled => return settled,
            };
            let asked = match &error {
                RegistryError::CannotKnow { retry_after, .. } => *retry_after,
                _ => None,
            };
            let pause = asked.unwrap_or_default().max(jittered(wait));
            if attempt >= patience.tries || pause > patience.longest_wait {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
            wait = wait.saturating_mul(2).min(patience.longest_wait);
        }
    }

    async fn call_once(&self, call: &Call<'_>) -> Result<Response<Incoming>, RegistryError> {
        let response = self.follow(call).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // A token that was good may have run out: ask for one, once, and try once more.
        self.forget_tokens();
        let asked = header(&response, WWW_AUTHENTICATE.as_str()).and_then(headers::challenge);
        let asked =
            asked.ok_or_else(|| self.denied("wants a login of a kind that we do not know"))?;
        let value = self.authorization(&asked, call.scope).await?;
        if let Ok(mut tokens) = self.tokens.lock() {
            tokens.insert(call.scope.to_owned(), value);
        }
        let response = self.follow(call).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.denied("does not accept our login"));
        }
        Ok(response)
    }

    fn denied(&self, why: &str) -> RegistryError {
        RegistryError::Denied(format!(
            "{} {why}; look at username and password_file in the [update] section",
            self.authority
        ))
    }

    /// The value of `Authorization` that answers a challenge.
    async fn authorization(
        &self,
        challenge: &Challenge,
        scope: &str,
    ) -> Result<String, RegistryError> {
        let basic = self.credentials.as_ref().map(|who| {
            format!("Basic {}", STANDARD.encode(format!("{}:{}", who.username, who.password)))
        });
        let (realm, service, asked) = match challenge {
            Challenge::Basic => return basic.ok_or_else(|| self.denied("wants a login")),
            Challenge::Bearer { realm, service, scope } => (realm, service, scope),
        };
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut text = format!("{realm}{separator}scope=");
        escape(asked.as_deref().unwrap_or(scope), &mut text);
        if let Some(service) = service {
            text.push_str("&service=");
            escape(service, &mut text);
        }
        let place = format!("token service of {}", self.authority);
        let uri: Uri = text
            .parse()
            .map_err(|_| RegistryError::cannot_know(format!("{place}: malformed address")))?;
        let secure = uri.scheme_str() == Some("https");
        if !(secure || self.plain_http && uri.scheme_str() == Some("http")) || is_link_local(&uri) {
            return Err(RegistryError::cannot_know(format!(
                "{place}: refused to send a login to {}",
                origin(&uri)
            )));
        }
        let mut request = Request::get(uri).header(USER_AGENT, AGENT);
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let request = request
            .body(empty())
            .map_err(|_| RegistryError::cannot_know(format!("{place}: malformed address")))?;
        let limit = self.transport.patience.headers;
        let response = self
            .transport
            .send(request, limit)
            .await
            .map_err(|error| RegistryError::cannot_know(format!("{place}: {error}")))?;
        let response = settled(response, &place)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(self.denied("does not accept our login")),
            status => {
                return Err(RegistryError::cannot_know(format!("{place}: answered {status}")));
            }
        }
        let body = self.transport.read_body(response, TOKEN_BYTES_MAX, &place).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| RegistryError::cannot_know(format!("{place}: answer is not JSON")))?;
        answer
            .token
            .or(answer.access_token)
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| RegistryError::cannot_know(format!("{place}: answer without a token")))
    }

    /// Sends the call and follows redirects of a GET: a storage server may take its signed address
    /// for that alone. Our token goes to our origin alone.
    async fn follow(&self, call: &Call<'_>) -> Result<Response<Incoming>, RegistryError> {
        let home = origin(&self.uri("/")?);
        let mut uri = call.uri.clone();
        for _ in 0..=REDIRECTS_MAX {
            let here = origin(&uri);
            let place = format!("{} {}", call.method, shown(&uri));
            let request = self.request(call, &uri, here == home);
            let request = request
                .map_err(|_| RegistryError::cannot_know(format!("{place}: malformed address")))?;
            let response = self
                .transport
                .send(request, call.limit)
                .await
                .map_err(|error| RegistryError::cannot_know(format!("{place}: {error}")))?;
            let response = settled(response, &place)?;
            let moved = response.status().is_redirection()
                && response.status() != StatusCode::NOT_MODIFIED
                && call.method == Method::GET;
            if !moved {
                // 401 is ours to answer only from the registry itself; a storage server's means
                // that its signed address has run out.
                if here != home && response.status().is_client_error() {
                    let status = response.status();
                    let ranged = status == StatusCode::RANGE_NOT_SATISFIABLE;
                    if !ranged {
                        return Err(RegistryError::cannot_know(format!(
                            "{place}: answered {status}"
                        )));
                    }
                }
                return Ok(response);
            }
            let target = header(&response, LOCATION.as_str()).unwrap_or_default();
            uri = redirect(&uri, target)
                .map_err(|why| RegistryError::cannot_know(format!("{place}: {why}")))?;
        }
        Err(RegistryError::cannot_know(format!(
            "{}: more than {REDIRECTS_MAX} redirects, not followed",
            shown(&call.uri)
        )))
    }

    fn request(
        &self,
        call: &Call<'_>,
        uri: &Uri,
        is_home: bool,
    ) -> Result<Request<Body>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT_ENCODING, "identity");
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let token = self.tokens.lock().ok().and_then(|tokens| tokens.get(call.scope).cloned());
        if let (true, Some(token)) = (is_home, token) {
            request = request.header(AUTHORIZATION, token);
        }
        let body = if call.body.is_empty() { empty() } else { full(call.body.clone()) };
        request.body(body)
    }

    pub(crate) fn token(&self, scope: &str) -> Option<String> {
        self.tokens.lock().ok().and_then(|tokens| tokens.get(scope).cloned())
    }
}

/// An answer that says something; 429 and 5xx do not.
fn settled(response: Response<Incoming>, place: &str) -> Result<Response<Incoming>, RegistryError> {
    let status = response.status();
    let silent = status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    if !silent {
        return Ok(response);
    }
    let retry_after = header(&response, RETRY_AFTER.as_str()).and_then(headers::retry_after);
    Err(RegistryError::CannotKnow { what: format!("{place}: answered {status}"), retry_after })
}

/// Where a redirect leads, if it may be followed.
fn redirect(from: &Uri, target: &str) -> Result<Uri, String> {
    let uri = resolve(from, target).ok_or("redirect without a usable target")?;
    if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return Err(format!("redirect from https to {} not followed", origin(&uri)));
    }
    if is_link_local(&uri) {
        return Err(format!("redirect to the link-local {} not followed", origin(&uri)));
    }
    Ok(uri)
}

/// `target` as seen from `from`: absolute, `//host/path`, `/path` or relative.
pub(crate) fn resolve(from: &Uri, target: &str) -> Option<Uri> {
    if target.is_empty() || target.len() > 8192 {
        return None;
    }
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let text = if target.starts_with("http://") || target.starts_with("https://") {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        let (folder, _) = from.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{folder}/{target}")
    };
    let uri: Uri = text.parse().ok()?;
    uri.host()?;
    Some(uri)
}

/// Whether the host is written as a link-local address; [`super::names`] looks at names.
fn is_link_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.parse().is_ok_and(names::is_link_local)
}

/// Scheme, host and port.
pub(crate) fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{}:{port}", uri.host().unwrap_or_default().to_ascii_lowercase())
}

/// An address for messages: without the query, which may be a signature.
pub(crate) fn shown(uri: &Uri) -> String {
    format!("{}{}", uri.authority().map_or("", |authority| authority.as_str()), uri.path())
}

pub(crate) fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' | b'/' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}

/// Half to one and a half times `wait`: a fleet must not come back in step.
pub(crate) fn jittered(wait: Duration) -> Duration {
    // The hasher's keys come from the system's random source.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let permille = 500 + random % 1000;
    wait.saturating_mul(u32::try_from(permille).unwrap_or(1000)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_by_rule() {
        let check = |from: &str, target: &str, expected: Option<&str>| {
            let from: Uri = from.parse().unwrap();
            let led = redirect(&from, target).ok().map(|uri| uri.to_string());
            assert_eq!(led.as_deref(), expected, "{from} {target}");
        };
        let (http, https) = ("http://r:5000/v2/a/b", "https://r/v2/a/b");
        check(https, "https://s/x?sig=1", Some("https://s/x?sig=1"));
        check(http, "//s/x", Some("http://s/x"));
        check(http, "/x", Some("http://r:5000/x"));
        check(http, "x", Some("http://r:5000/v2/a/x"));
        check(http, "https://s/x", Some("https://s/x"));
        for bad in [
            "http://s/x",
            "http://r/v2/x",
            "",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/",
            "https://[::ffff:169.254.0.1]/",
            "https://",
            "ftp:///",
        ] {
            if bad != "ftp:///" {
                check(https, bad, None);
            }
        }
    }

    #[test]
    fn jitter_stays_near() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(10));
            assert!((5..15).contains(&wait.as_secs()), "{wait:?}");
        }
    }
}
