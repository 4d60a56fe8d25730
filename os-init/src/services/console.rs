//! What the console's container finds under `/run/bascule/console`: who may log in.
//!
//! There is no password and no default account: `root` has the keys of the configuration, over
//! SSH, and a password on the local console only where the configuration holds its hash.

use crate::config::Config;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The folder, made by the services manager before the console starts.
pub const FOLDER: &str = "/run/bascule/console";

/// The lines of `authorized_keys`: each key of the configuration on its own line.
pub fn authorized_keys(config: &Config) -> String {
    let mut out = String::new();
    for key in &config.ssh_keys {
        // A key is one line; writing to a String cannot fail.
        let _ = writeln!(out, "{}", key.replace(['\n', '\r', '\0'], " ").trim());
    }
    out
}

/// The image's shadow file with root's field replaced; `*` allows no password at all.
pub fn shadow(image: &str, config: &Config) -> String {
    let hash = config.console_password_hash.as_deref().filter(|hash| is_hash(hash)).unwrap_or("*");
    let mut out = String::new();
    for line in image.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if let [name, password, ..] = fields.as_mut_slice()
            && *name == "root"
        {
            *password = hash;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", fields.join(":"));
    }
    out
}

/// A crypt(5) hash: never empty (which would mean "no password needed"), never a field separator.
fn is_hash(text: &str) -> bool {
    text.starts_with('$')
        && text.len() < 512
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Writes both files, readable by root alone.
///
/// # Errors
/// The system's, when `/run` cannot be written.
pub fn write(folder: &Path, image_shadow: &str, config: &Config) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for (name, text) in
        [("authorized_keys", authorized_keys(config)), ("shadow", shadow(image_shadow, config))]
    {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n";

    fn config(hash: Option<&str>) -> Config {
        Config {
            ssh_keys: vec!["ssh-ed25519 AAAA me\nssh-rsa evil".into()],
            console_password_hash: hash.map(str::to_string),
            ..Config::default()
        }
    }

    #[test]
    fn a_key_stays_one_line() {
        assert_eq!(authorized_keys(&config(None)), "ssh-ed25519 AAAA me ssh-rsa evil\n");
    }

    #[test]
    fn without_a_hash_nobody_has_a_password() {
        for hash in [None, Some(""), Some("plain"), Some("$6$a:0:0")] {
            assert_eq!(shadow(IMAGE, &config(hash)), IMAGE);
        }
        assert!(
            shadow(IMAGE, &config(Some("$6$salt$hash"))).starts_with("root:$6$salt$hash:19000")
        );
    }
}
