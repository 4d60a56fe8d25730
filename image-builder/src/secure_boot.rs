//! Signatures that firmware checks, made by `osslsigncode` with a fixed time: the same program,
//! keys and time give the same bytes.
//!
//! A program may carry several. Firmware starts it when it knows any one of the certificates, so
//! a release signed with the old and the new key starts on every machine while keys change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::pe;
use crate::run;

/// A private key, PEM without a passphrase, and its certificate, PEM.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The key.
    pub key: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
}

/// Pairs each certificate with its key: the one at the same place, or the only one.
///
/// # Errors
/// There are several keys, and not as many certificates.
pub fn pairs(keys: &[PathBuf], certificates: &[PathBuf]) -> Result<Vec<KeyPair>> {
    let pair = |key: &PathBuf, certificate: &PathBuf| KeyPair {
        key: key.clone(),
        certificate: certificate.clone(),
    };
    match keys {
        [only] => Ok(certificates.iter().map(|certificate| pair(only, certificate)).collect()),
        _ => {
            ensure!(
                keys.len() == certificates.len(),
                "{} Secure Boot keys and {} certificates: give one key for all certificates, or \
                 one for each",
                keys.len(),
                certificates.len()
            );
            Ok(keys.iter().zip(certificates).map(|(key, of)| pair(key, of)).collect())
        }
    }
}

/// Signs for Secure Boot.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Who signs, in the order of the signatures.
    pub pairs: Vec<KeyPair>,
    /// Time that the signatures carry, seconds since 1970.
    pub time: u64,
}

impl Signer {
    /// `program` with a signature of each pair; as it was where there is none. `work` is a folder
    /// for files in between.
    ///
    /// # Errors
    /// `osslsigncode` fails: it is too old (2.9 is the first with a fixed time), or a key does
    /// not fit its certificate.
    pub fn sign(&self, program: &[u8], work: &Path) -> Result<Vec<u8>> {
        let Some((first, others)) = self.pairs.split_first() else { return Ok(program.to_vec()) };
        let mut signed = self.sign_once(first, program, work)?;
        for pair in others {
            // Each signs the plain program: a signature that was there would be replaced.
            let other = self.sign_once(pair, program, work)?;
            pe::add_certificates(&mut signed, &other).context("put the signatures together")?;
        }
        Ok(signed)
    }

    fn sign_once(&self, pair: &KeyPair, program: &[u8], work: &Path) -> Result<Vec<u8>> {
        let (plain, signed) = (work.join("plain.efi"), work.join("signed.efi"));
        fs::write(&plain, program).with_context(|| format!("write {}", plain.display()))?;
        if signed.exists() {
            fs::remove_file(&signed).with_context(|| format!("remove {}", signed.display()))?;
        }
        let mut sign = Command::new("osslsigncode");
        sign.args(["sign", "-h", "sha256", "-time", &self.time.to_string()]);
        sign.arg("-key").arg(&pair.key).arg("-certs").arg(&pair.certificate);
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
