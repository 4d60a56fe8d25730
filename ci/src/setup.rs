//! Installs what the host lacks. Asks the network nothing when all is there.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::packages::{PACKAGES, Package};
use crate::step;

const BACKPORTS_LIST: &str = "/etc/apt/sources.list.d/bascule-backports.sources";

/// Installs missing packages and prepares the UEFI target.
///
/// # Errors
/// Not Debian 12 or 13, no root and no sudo, or apt fails.
pub fn run() -> Result<()> {
    host_packages()?;
    Ok(())
}

fn host_packages() -> Result<()> {
    let installed = installed()?;
    let missing: Vec<&Package> =
        PACKAGES.iter().filter(|package| !is_present(package, &installed)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let release = debian_release()?;
    println!("setup: {} Debian packages are missing and will be installed:", missing.len());
    for package in &missing {
        println!("  {:<24} {}", package.name, package.reason);
    }
    apt(&["update", "-q"])?;
    let (from_backports, stock): (Vec<&Package>, Vec<&Package>) =
        missing.into_iter().partition(|package| package.backport && release == "12");
    if !from_backports.is_empty() {
        add_backports()?;
        install(&from_backports, &["-t", "bookworm-backports"])?;
    }
    if !stock.is_empty() {
        install(&stock, &[])?;
    }
    Ok(())
}

fn is_present(package: &Package, installed: &BTreeMap<String, String>) -> bool {
    let Some(version) = installed.get(package.name) else {
        return false;
    };
    package.at_least.is_empty() || is_at_least(version, package.at_least)
}

fn is_at_least(version: &str, wanted: &str) -> bool {
    Command::new("dpkg")
        .args(["--compare-versions", version, "ge", wanted])
        .status()
        .is_ok_and(|status| status.success())
}

/// Name and version of each installed package.
fn installed() -> Result<BTreeMap<String, String>> {
    let format = "${db:Status-Status} ${Package} ${Version}\n";
    let text = step::output(Command::new("dpkg-query").args(["-W", "-f", format]))
        .context("list installed packages (is this Debian 12 or 13?)")?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some("installed"), Some(name), Some(version)) =
            (words.next(), words.next(), words.next())
        {
            found.insert(name.to_owned(), version.to_owned());
        }
    }
    Ok(found)
}

fn debian_release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    let (id, version) = (value("ID"), value("VERSION_ID"));
    if id != "debian" || !["12", "13"].contains(&version.as_str()) {
        let names: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
        bail!(
            "set-up knows Debian 12 and 13, this is {id} {version}: install the equivalents of: {}",
            names.join(" ")
        );
    }
    Ok(version)
}

/// Makes sure that apt knows bookworm-backports, from the archive it already uses.
fn add_backports() -> Result<()> {
    let format = "$(CODENAME) $(SITE)";
    let text = step::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let site_of = |codename: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(codename)?.strip_prefix(' '))
            .map(str::to_owned)
    };
    if site_of("bookworm-backports").is_some() {
        return Ok(());
    }
    let Some(site) = site_of("bookworm") else {
        bail!("apt has no source for bookworm main: add one and run `cargo xtask setup` again");
    };
    println!("setup: adds {BACKPORTS_LIST} (bookworm-backports from {site})");
    let content = format!(
        "Types: deb\nURIs: {site}\nSuites: bookworm-backports\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    write_as_root(BACKPORTS_LIST, &content)?;
    apt(&["update", "-q"])
}

fn install(packages: &[&Package], options: &[&str]) -> Result<()> {
    let names = packages.iter().map(|package| package.name);
    let mut words = vec!["install", "-y", "-q", "--no-install-recommends"];
    words.extend(options);
    words.extend(names);
    let plan = step::output(Command::new("apt-get").arg("-s").args(&words))?;
    let removed: Vec<&str> = plan
        .lines()
        .filter_map(|line| line.strip_prefix("Remv "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    if !removed.is_empty() {
        bail!(
            "apt would remove {} to install {}: install them by hand and run setup again",
            removed.join(" "),
            words.join(" ")
        );
    }
    apt(&words)
}

fn apt(words: &[&str]) -> Result<()> {
    let name = format!("apt-get {}", words.first().unwrap_or(&""));
    step::run(&name, as_root("apt-get")?.env("DEBIAN_FRONTEND", "noninteractive").args(words))
}

fn as_root(program: &str) -> Result<Command> {
    let uid = step::output(Command::new("id").arg("-u"))?;
    if uid.trim() == "0" {
        return Ok(Command::new(program));
    }
    let has_sudo = Command::new("sudo")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_sudo {
        bail!(
            "installing packages needs root and there is no sudo: run `cargo xtask setup` as root"
        );
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    Ok(command)
}

fn write_as_root(path: &str, content: &str) -> Result<()> {
    use std::io::Write;
    let mut child = as_root("tee")?
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("start tee {path}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(content.as_bytes()).with_context(|| format!("write {path}"))?;
    }
    if !child.wait().with_context(|| format!("write {path}"))?.success() {
        bail!("cannot write {path}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_below_its_lowest_version_is_missing() {
        let package =
            Package { name: "osslsigncode", at_least: "2.9~", backport: true, reason: "" };
        let with =
            |version: &str| BTreeMap::from([("osslsigncode".to_owned(), version.to_owned())]);
        assert!(is_present(&package, &with("2.9-1~bpo12+1")));
        assert!(is_present(&package, &with("2.10-1")));
        assert!(!is_present(&package, &with("2.5-4")));
        assert!(!is_present(&package, &BTreeMap::new()));
    }
}
