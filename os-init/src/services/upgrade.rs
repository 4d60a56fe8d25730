//! `NAME.image` beside the operator's service files: another image for one service, built in or not.
//!
//! ```toml
//! format = 1
//! image = "registry/repository@sha256:…"   # what runs; empty: what the service file says
//! previous = ""                            # what ran before, for a way back
//! over = "release 7"                       # what the choice was made over
//! ```
//!
//! **Which one runs.** A choice stands over what it was made over: for a built-in service, over that
//! release of the OS; for an operator's, over the image that its file names. Another release, or
//! another image in the file, is newer than the choice and sets it aside. A release that comes back
//! by a rollback brings its choices back.
//!
//! It is written when the new image has been seen healthy, never before: a power cut in the middle
//! of an upgrade leaves what ran.

use super::file::{Invalid, ServiceFile};
use super::images;
use serde::Deserialize;

/// A choice of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    format: u32,
    /// The image that runs; empty for what the service file says.
    pub image: String,
    /// What ran before; in the same words.
    pub previous: String,
    /// What the choice was made over.
    pub over: String,
}

impl Upgrade {
    /// A choice of `image` for a service that ran `previous`.
    #[must_use]
    pub fn new(image: &str, previous: &str, over: String) -> Self {
        Self { format: 1, image: image.to_owned(), previous: previous.to_owned(), over }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Invalid`], as for a service file.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let made: Self = toml::from_str(text).map_err(|e| Invalid::Syntax(e.to_string()))?;
        if made.format != 1 {
            return Err(Invalid::Format(made.format));
        }
        for (key, image) in [("image", &made.image), ("previous", &made.previous)] {
            if !image.is_empty() && images::digest(image).is_none() {
                return Err(Invalid::Value(key, "is not registry/repository@sha256:…".into()));
            }
        }
        // Else it could not be written back as it is.
        let plain = |c: char| !c.is_control() && !"\"\\".contains(c);
        if !made.over.chars().all(plain) {
            return Err(Invalid::Value("over", "holds what no image or release does".into()));
        }
        Ok(made)
    }

    /// The file's text. The values are references and words of ours: nothing in them needs escaping.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { format, image, previous, over } = self;
        format!(
            "format = {format}\nimage = \"{image}\"\nprevious = \"{previous}\"\nover = \"{over}\"\n"
        )
    }
}

/// What a choice for this service is made over: `release` is the OS's that runs.
#[must_use]
pub fn over(file: &ServiceFile, built_in: bool, release: u64) -> String {
    match built_in {
        true => format!("release {release}"),
        false => file.image.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let image = format!("registry/web@sha256:{}", "a".repeat(64));
        let made = Upgrade::new(&image, "", "release 7".into());
        assert_eq!(Upgrade::parse(&made.text()), Ok(made));
        for bad in
            ["format = 2", "image = \"registry/web:latest\"", "over = 'a\"b'", "other = 1", "["]
        {
            let text = Upgrade::new("", "", String::new()).text();
            let key = bad.split(' ').next().unwrap();
            let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with(key)).collect();
            assert!(Upgrade::parse(&format!("{}\n{bad}\n", rest.join("\n"))).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_choice_is_made_over_a_release_or_an_image() {
        let head = "format = 1\nname = \"web\"\ncommand = [\"/x\"]\n";
        let bare = ServiceFile::parse(head).unwrap();
        assert_eq!(over(&bare, true, 7), "release 7");
        assert_eq!(over(&bare, false, 7), "");
        let image = format!("registry/web@sha256:{}", "a".repeat(64));
        let file = ServiceFile::parse(&format!("{head}image = \"{image}\"\n")).unwrap();
        assert_eq!(over(&file, false, 7), image);
    }
}
