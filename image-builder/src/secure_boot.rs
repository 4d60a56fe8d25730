//! Signatures that firmware checks, made by `osslsigncode` with a fixed time: the same program,
//! key and time give the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;

/// Key and certificate for Secure Boot.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Private key, PEM without a passphrase.
    pub key: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Time that the signature carries, seconds since 1970.
    pub time: u64,
}

impl Signer {
    /// `program` with a signature; `work` is a folder for files in between.
    ///
    /// # Errors
    /// `osslsigncode` fails: it is too old (2.9 is the first with a fixed time), or the key does
    /// not fit the certificate.
    pub fn sign(&self, program: &[u8], work: &Path) -> Result<Vec<u8>> {
        let (plain, signed) = (work.join("plain.efi"), work.join("signed.efi"));
        fs::write(&plain, program).with_context(|| format!("write {}", plain.display()))?;
        if signed.exists() {
            fs::remove_file(&signed).with_context(|| format!("remove {}", signed.display()))?;
        }
        let mut sign = Command::new("osslsigncode");
        sign.args(["sign", "-h", "sha256", "-time", &self.time.to_string()]);
        sign.arg("-key").arg(&self.key).arg("-certs").arg(&self.certificate);
        sign.arg("-in").arg(&plain).arg("-out").arg(&signed);
        run::quiet(&mut sign, "osslsigncode, 2.9 or later")?;
        let bytes = fs::read(&signed).with_context(|| format!("read {}", signed.display()))?;
        ensure!(bytes.len() > program.len(), "osslsigncode added no signature");
        for path in [plain, signed] {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(bytes)
    }
}
