//! The name of an image: `registry/repository:tag`, `registry/repository@sha256:…`, or both.

use update_manifest::digest::Digest;

/// An image in a registry. There is no default registry and no default repository prefix: a name
/// that means another place elsewhere is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and port of the registry, as written.
    pub registry: String,
    /// Repository path, without slashes at its ends.
    pub repository: String,
    /// What to resolve.
    pub target: Target,
}

/// What a reference points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A name that may move.
    Tag(String),
    /// A content that cannot.
    Digest(Digest),
}

/// Longest reference taken, in bytes.
const LENGTH_MAX: usize = 512;

impl Reference {
    /// Reads a reference. A missing tag is `latest`; a digest wins over a tag.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?} is not registry/repository:tag: {why}")
        };
        if text.len() > LENGTH_MAX {
            return Err(wrong("too long"));
        }
        let (registry, rest) = text.split_once('/').ok_or_else(|| wrong("no repository"))?;
        if !is_registry(registry) {
            return Err(wrong("the part before the first slash is no host"));
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        if !is_repository(repository) {
            return Err(wrong("the repository has characters that none may have"));
        }
        let tag = tag.unwrap_or("latest");
        if !is_tag(tag) {
            return Err(wrong("the tag has characters that none may have"));
        }
        let target = match digest {
            Some(digest) => Target::Digest(
                Digest::parse(digest).ok_or_else(|| wrong("the digest is not sha256:<hex>"))?,
            ),
            None => Target::Tag(tag.to_owned()),
        };
        Ok(Reference { registry: registry.to_owned(), repository: repository.to_owned(), target })
    }

    /// The same repository at `digest`.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { target: Target::Digest(digest), ..self.clone() }
    }

    /// `registry/repository`, without tag or digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.target {
            Target::Tag(tag) => write!(f, ":{tag}"),
            Target::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

fn is_registry(text: &str) -> bool {
    let host = text.starts_with('[') || text.contains(['.', ':']) || text == "localhost";
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    host && begins && text.chars().all(plain) && text.parse::<http::uri::Authority>().is_ok()
}

fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        ends(part.bytes().next()) && ends(part.bytes().last()) && part.bytes().all(inside)
    };
    text.len() <= 255 && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
    first && text.len() <= 128 && text.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        let check = |text: &str, shown: Option<&str>| {
            let parsed = Reference::parse(text).ok().map(|reference| reference.to_string());
            assert_eq!(parsed.as_deref(), shown, "{text}");
        };
        check("10.0.2.2:5000/bascule/os:stable", Some("10.0.2.2:5000/bascule/os:stable"));
        check("registry.example.com/os", Some("registry.example.com/os:latest"));
        check("[::1]:5000/os:v1", Some("[::1]:5000/os:v1"));
        let hex = "a".repeat(64);
        check(
            &format!("localhost/os:v1@sha256:{hex}"),
            Some(&format!("localhost/os@sha256:{hex}")),
        );
        for bad in [
            "",
            "os",
            "os:v1",
            "bascule/os:v1",
            "a.b/",
            "a.b/../x:v",
            "../x:v",
            "a.b/Os:v",
            "a.b/o:-",
            "a.b/os@sha256:12",
            "a.b/o s",
            "user@a.b/os:v",
            "a.b/os?x=1",
        ] {
            check(bad, None);
        }
    }
}
