//! Test keys, made once per clone in `target/keys`. Whoever has them can sign for test images.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{place, step};

/// Key pairs that sign releases: the trusted one, and one nobody trusts.
const SIGNERS: &[&str] = &["update", "stranger"];
/// The certificate that Debian's OVMF with test keys enrolled accepts, and its key.
const SNAKEOIL: &str = "/usr/share/ovmf/PkKek-1-snakeoil";
const SNAKEOIL_PASSPHRASE: &str = "snakeoil";

/// Makes what is missing.
///
/// # Errors
/// openssl or ssh-keygen fails.
pub fn ensure() -> Result<()> {
    let dir = place::keys();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    for name in SIGNERS {
        signer(&dir, name)?;
    }
    if !dir.join("ssh").exists() {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "bascule-test", "-f"]);
        step::run("key ssh", keygen.arg(dir.join("ssh")))?;
    }
    secure_boot(&dir)
}

fn signer(dir: &Path, name: &str) -> Result<()> {
    let (key, public) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pub")));
    if !key.exists() {
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-pkeyopt", "ec_param_enc:named_curve", "-out"]);
        step::run(&format!("key {name}"), openssl.arg(&key))?;
    }
    if !public.exists() {
        let mut openssl = Command::new("openssl");
        openssl.args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public);
        step::run(&format!("public key {name}"), &mut openssl)?;
    }
    Ok(())
}

/// The key of the firmware's test certificate, without its passphrase.
fn secure_boot(dir: &Path) -> Result<()> {
    let (key, certificate) = (dir.join("sb.key"), dir.join("sb.crt"));
    if !key.exists() {
        let mut openssl = Command::new("openssl");
        openssl.args(["rsa", "-in", &format!("{SNAKEOIL}.key")]);
        openssl.args(["-passin", &format!("pass:{SNAKEOIL_PASSPHRASE}"), "-out"]);
        step::run("Secure Boot test key", openssl.arg(&key))?;
    }
    if !certificate.exists() {
        fs::copy(format!("{SNAKEOIL}.pem"), &certificate)
            .with_context(|| format!("copy {SNAKEOIL}.pem (package ovmf)"))?;
    }
    Ok(())
}
