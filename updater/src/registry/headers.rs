//! What registries write into headers, read without trust. Pure.

use std::time::Duration;

/// Longest header value looked at, in bytes.
const VALUE_MAX: usize = 8192;

/// `Content-Range: bytes FIRST-LAST/TOTAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte of the answer.
    pub first: u64,
    /// Last byte of the answer, inclusive.
    pub last: u64,
    /// Size of the whole, where the server knows it.
    pub total: Option<u64>,
}

/// Reads a `Content-Range` of a 206; `None` when it is not of that form or contradicts itself.
#[must_use]
pub fn content_range(value: &str) -> Option<ContentRange> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let sound = first <= last && total.is_none_or(|total| last < total);
    sound.then_some(ContentRange { first, last, total })
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `Retry-After` in seconds. A date is taken as one minute: it would need our clock to be right.
#[must_use]
pub fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    // A day at most: longer means "go away", and a restart of the daemon asks again anyway.
    Some(Duration::from_secs(number(value).map_or(60, |seconds| seconds.min(86_400))))
}

/// What a 401 asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token, from another place.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

/// Reads `WWW-Authenticate`; `None` when there is no scheme in it that we speak.
#[must_use]
pub fn challenge(value: &str) -> Option<Challenge> {
    if value.len() > VALUE_MAX {
        return None;
    }
    let (scheme, rest) = match value.trim().split_once(' ') {
        Some((scheme, rest)) => (scheme, rest),
        None => (value.trim(), ""),
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest;
    while let Some((name, value, after)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = realm.or(Some(value)),
            "service" => service = service.or(Some(value)),
            "scope" => scope = scope.or(Some(value)),
            _ => {}
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// The first `name="value"` or `name=value` of a list, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let name = name.trim();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(',').unwrap_or(rest.len());
        let (value, after) = rest.split_at_checked(end)?;
        return Some((name, value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// The target of `Link: <target>; rel="next"`.
#[must_use]
pub fn next_link(value: &str) -> Option<&str> {
    let (target, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
    (next && value.len() <= VALUE_MAX).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let check = |text: &str, expected| {
            let read = content_range(text).map(|range| (range.first, range.last, range.total));
            assert_eq!(read, expected, "{text}");
        };
        check("bytes 0-9/10", Some((0, 9, Some(10))));
        check("bytes 5-9/*", Some((5, 9, None)));
        for bad in [
            "",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 0-10/10",
            "bytes 0-9",
            "items 0-9/10",
            "bytes +1-9/10",
            "bytes 0-99999999999999999999/*",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        let check = |text: &str, expected| assert_eq!(challenge(text), expected, "{text}");
        check("Basic realm=\"x\"", Some(Challenge::Basic));
        check(
            r#"Bearer realm="https://a/t",service="r",scope="repository:os:pull,push""#,
            bearer("https://a/t", Some("r"), Some("repository:os:pull,push")),
        );
        check(
            r#"bearer  service=r , realm="https://a/\"t""#,
            bearer("https://a/\"t", Some("r"), None),
        );
        check(r#"Bearer realm="unclosed"#, None);
        check("Digest x=y", None);
        check("", None);
    }

    #[test]
    fn waits_and_links() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999999"), Some(Duration::from_secs(86_400)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(""), None);
        assert_eq!(next_link("</v2/x?n=1>; rel=\"next\""), Some("/v2/x?n=1"));
        assert_eq!(next_link("</v2/x>; rel=\"prev\""), None);
    }
}
