//! The switches do what they say, before a registry of one blob.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use fault_proxy::{Faults, Gzip, Login, Proxy, Ranges, Redirect, Referrers};

const BLOB: &str = "/v2/os/blobs/sha256:00";
const MANIFEST: &str = "/v2/os/manifests/v1";

/// Answers every request with the same words, until the test ends.
fn registry() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let body = if head.starts_with("HEAD") { "" } else { "{\"a\":1}" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nAccept-Ranges: bytes\r\nConnection: \
                 close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.extend_from_slice(&byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The whole answer to a request with one header of its own.
fn ask(address: SocketAddr, method: &str, path: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).to_lowercase()
}

fn proxy(faults: Faults) -> Proxy {
    Proxy::start("127.0.0.1:0", &registry().to_string(), faults).unwrap()
}

#[test]
fn at_rest_it_is_honest() {
    let proxy = proxy(Faults::default());
    for path in [BLOB, MANIFEST] {
        let answer = ask(proxy.address(), "GET", path, "");
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(answer.contains("accept-ranges: bytes"), "{answer}");
        assert!(answer.ends_with("{\"a\":1}"), "{answer}");
    }
    proxy.set(Faults { ranges: Ranges::StripAcceptRanges, ..Faults::default() });
    assert!(!ask(proxy.address(), "GET", BLOB, "").contains("accept-ranges"));
}

#[test]
fn a_login_is_asked_for_once() {
    let proxy = proxy(Faults { login: Login::Bearer, ..Faults::default() });
    let answer = ask(proxy.address(), "GET", MANIFEST, "");
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    let realm = format!("bearer realm=\"http://{}/token\"", proxy.address());
    assert!(answer.contains(&realm), "{answer}");
    assert!(ask(proxy.address(), "GET", "/token?scope=x", "").contains("\"token\""));
    let answer = ask(proxy.address(), "GET", MANIFEST, "Authorization: Bearer t0ken\r\n");
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    proxy.set(Faults { login: Login::Basic, ..Faults::default() });
    assert!(ask(proxy.address(), "GET", BLOB, "").contains("www-authenticate: basic"));
    let logins = proxy.take_seen().iter().filter(|seen| seen.has_login).count();
    assert_eq!(logins, 1);
}

#[test]
fn hops_come_before_the_storage_server() {
    let proxy = proxy(Faults { redirect: Redirect::Storage, hops: 2, ..Faults::default() });
    let mut path = BLOB.to_owned();
    for hop in ["?hop=1", "?hop=2"] {
        let answer = ask(proxy.address(), "GET", &path, "");
        path = format!("{BLOB}{hop}");
        assert!(answer.contains(&format!("location: {path}\r\n")), "{answer}");
    }
    for method in ["GET", "HEAD"] {
        let answer = ask(proxy.address(), method, &path, "");
        assert!(answer.starts_with("http/1.1 307"), "{answer}");
        let (_, to) = answer.split_once("location: http://").unwrap();
        let storage: SocketAddr = to.split_once('/').unwrap().0.parse().unwrap();
        let answer = ask(storage, method, BLOB, "");
        let expected = if method == "GET" { "http/1.1 200" } else { "http/1.1 400" };
        assert!(answer.starts_with(expected), "{answer}");
        let answer = ask(storage, method, BLOB, "Authorization: Basic x\r\n");
        assert!(answer.starts_with("http/1.1 400"), "{answer}");
    }
}

#[test]
fn gzip_comes_where_it_is_taken_or_always() {
    let proxy = proxy(Faults { gzip: Gzip::Accepted, ..Faults::default() });
    let is_zipped = |path: &str, header: &str| {
        ask(proxy.address(), "GET", path, header).contains("content-encoding: gzip")
    };
    for path in [BLOB, MANIFEST] {
        assert!(!is_zipped(path, ""));
        assert!(!is_zipped(path, "Accept-Encoding: identity\r\n"));
        assert!(is_zipped(path, "Accept-Encoding: gzip, br\r\n"));
    }
    proxy.set(Faults { gzip: Gzip::Always, ..Faults::default() });
    assert!(is_zipped(MANIFEST, "Accept-Encoding: identity\r\n"));
}

#[test]
fn served_referrers_stand_behind_the_crowd() {
    let faults = Faults { referrers: Referrers::Served, crowd: 3, ..Faults::default() };
    let answer = ask(proxy(faults).address(), "GET", "/v2/os/referrers/sha256:00", "");
    assert_eq!(answer.matches("application/spdx+json").count(), 3, "{answer}");
}
