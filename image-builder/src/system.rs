//! What the root holds besides packages: our programs, the machine's own files, what maintainer
//! scripts would have made.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::json;
use update_manifest::sign::SigningKey;

use crate::build::Request;
use crate::spec::Spec;
use crate::tree::{Node, Tree};

/// Our programs and where they go.
const PROGRAMS: [(&str, &str); 7] = [
    ("os-init", "/usr/lib/bascule/os-init"),
    ("os-services", "/usr/lib/bascule/os-services"),
    ("os-log", "/usr/lib/bascule/os-log"),
    ("os-console", "/usr/lib/bascule/os-console"),
    ("osupdated", "/usr/lib/bascule/osupdated"),
    ("osupdate", "/usr/bin/osupdate"),
    ("osctl", "/usr/bin/osctl"),
];
/// os-init answers to these names too.
const NAMES: [&str; 3] = ["init", "reboot", "poweroff"];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Completes the root of `spec`.
///
/// # Errors
/// A program or source file is missing, or a path cannot be used.
pub fn complete(tree: &mut Tree, spec: &Spec, request: &Request, key: &SigningKey) -> Result<()> {
    for folder in &spec.folder {
        tree.put(folder, Node::Folder(folder_mode(folder)))?;
    }
    for (name, path) in PROGRAMS {
        let source = request.binaries.join(name);
        let bytes =
            fs::read(&source).with_context(|| format!("read program {}", source.display()))?;
        tree.file(path, 0o755, bytes)?;
    }
    for name in NAMES {
        let link = Node::Link("../lib/bascule/os-init".to_owned());
        tree.put(&format!("/usr/sbin/{name}"), link)?;
    }
    let mut services = fs::read_dir(&request.services)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("list {}", request.services.display()))?;
    services.sort_by_key(fs::DirEntry::file_name);
    for entry in services {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".toml") {
            continue;
        }
        let bytes = fs::read(entry.path()).with_context(|| format!("read service file {name}"))?;
        tree.file(&format!("/usr/share/bascule/services/{name}"), 0o644, bytes)?;
    }
    let trusted =
        key.public_pem().map_err(|error| anyhow::anyhow!("public half of the key: {error}"))?;
    tree.file("/usr/share/bascule/trust/release.pub", 0o644, trusted)?;
    tree.file("/usr/share/bascule/boot-set", 0o644, spec.boot_set.join("\n") + "\n")?;
    let release = json!({
        "product": spec.product, "kind": spec.kind, "arch": spec.arch, "release": spec.release,
        "secver": spec.secver, "version": spec.version, "build_time": spec.build_time,
    });
    tree.file("/usr/share/bascule/release.json", 0o644, format!("{release}\n"))?;
    tree.file("/usr/lib/os-release", 0o644, os_release(spec))?;
    tree.put("/etc/os-release", Node::Link("../usr/lib/os-release".to_owned()))?;
    let bundle = certificates(tree)?;
    tree.file(CERTIFICATES, 0o644, bundle)?;
    tree.remove(|path| path.starts_with("usr/share/ca-certificates"));
    for link in &spec.link {
        tree.put(&link.path, Node::Link(link.target.clone()))?;
    }
    for file in &spec.file {
        tree.file(&file.path, file.mode, file.bytes()?)?;
    }
    for path in &spec.boot_set {
        if tree.get(&resolved(tree, path)?).is_none() {
            bail!("boot set: the root has no {path}");
        }
    }
    Ok(())
}

/// The path behind a link in the last component; libraries are such links.
fn resolved(tree: &Tree, path: &str) -> Result<String> {
    match tree.get(path) {
        Some(Node::Link(target)) if target.starts_with('/') => Ok(target.clone()),
        Some(Node::Link(target)) => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            crate::tree::place(&format!("{folder}/{target}"))
        }
        _ => Ok(path.to_owned()),
    }
}

fn folder_mode(path: &str) -> u32 {
    match path {
        "/tmp" | "/var/tmp" => 0o1777,
        "/root" => 0o700,
        "/proc" | "/sys" => 0o555,
        _ => 0o755,
    }
}

fn os_release(spec: &Spec) -> String {
    let version = &spec.version;
    format!(
        "NAME=Bascule\nPRETTY_NAME=\"Bascule {version}\"\nID=bascule\nID_LIKE=debian\n\
         VERSION_ID={version}\nIMAGE_ID={}\nIMAGE_VERSION={}\n",
        spec.product, spec.release
    )
}

/// One bundle of all certificates of the package, as its own script would make it.
fn certificates(tree: &Tree) -> Result<Vec<u8>> {
    let mut bundle = Vec::new();
    for (path, node) in tree.nodes() {
        if let (true, Node::File(_, content)) =
            (path.starts_with("usr/share/ca-certificates/") && path.ends_with(".crt"), node)
        {
            bundle.extend_from_slice(content);
        }
    }
    if bundle.is_empty() {
        bail!("the packages hold no certificates in usr/share/ca-certificates");
    }
    Ok(bundle)
}
