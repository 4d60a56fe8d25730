//! As much HTTP as a test needs to put things into a registry by hand. Not for the product.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const QUIET: Duration = Duration::from_secs(60);

/// An answer: status, header lines as they came, body.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header lines.
    pub headers: String,
    /// Body, whole.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The answer itself.
    ///
    /// # Errors
    /// Its status is not `wanted`.
    pub fn expect(self, wanted: u16, what: &str) -> Result<Self> {
        if self.status != wanted {
            let said = String::from_utf8_lossy(&self.body);
            bail!("{what}: status {} instead of {wanted}: {}", self.status, said.trim());
        }
        Ok(self)
    }
}

/// One request to 127.0.0.1, one answer, one connection.
///
/// # Errors
/// Nobody listens, or the answer is not HTTP.
pub fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .with_context(|| format!("connect to 127.0.0.1:{port}"))?;
    stream.set_read_timeout(Some(QUIET)).context("set timeout")?;
    // Version 1.0: the answer ends with the connection and is never chunked.
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).with_context(|| format!("send {method} {path}"))?;
    stream.write_all(body).with_context(|| format!("send the body of {method} {path}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("read the answer to {path}"))?;
    parse(&bytes).with_context(|| format!("answer to {method} {path}"))
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("no end of headers");
    };
    let (head, body) = bytes.split_at(end);
    let head = String::from_utf8_lossy(head).into_owned();
    let Some(status) = head.split(' ').nth(1).and_then(|word| word.parse().ok()) else {
        bail!("no status in {head:?}");
    };
    Ok(Answer { status, headers: head, body: body.get(4..).unwrap_or_default().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_its_parts() {
        let answer = parse(b"HTTP/1.1 201 Created\r\nLocation: /x\r\n\r\nbody").unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("location"), Some("/x"));
        assert_eq!(answer.body, b"body");
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
