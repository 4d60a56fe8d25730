//! Single packages of Debian, of suites this machine does not run.
//!
//! An apt with its own lists, cache and empty status fetches them: it checks the archive's
//! signature as ever, and neither sees nor changes what the machine has installed. The site is
//! the one that the machine's apt is configured with.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package to look for.
pub struct Wanted<'a> {
    /// Its name.
    pub package: &'a str,
    /// Its upstream version or the beginning of it up to a separator; empty for any.
    pub upstream: &'a str,
    /// Suites to look in, in this order.
    pub suites: &'a [&'a str],
    /// The package is empty: what it depends on and begins so is wanted instead.
    pub leads_to: Option<&'a str>,
}

/// Downloads and unpacks a package to `target`. Complete or absent, never in between. False
/// when none of the suites has it.
///
/// # Errors
/// apt, dpkg or the file system fails.
pub fn fetch(wanted: &Wanted, target: &Path) -> Result<bool> {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    let work = PathBuf::from(name);
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    for folder in ["lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(work.join(folder))
            .with_context(|| format!("create {folder} in {}", work.display()))?;
    }
    let config = private_apt(&work)?;
    let sites = sites()?;
    for suite in wanted.suites {
        let lines: Vec<String> = sites.iter().map(|site| source_line(site, suite)).collect();
        fs::write(work.join("sources.list"), lines.concat()).context("write sources.list")?;
        let apt = |program: &str| {
            let mut command = Command::new(program);
            command.current_dir(&work).env("APT_CONFIG", &config);
            command
        };
        step::run(&format!("package list of {suite}"), apt("apt-get").arg("update"))?;
        let Some(full) = offered(&mut apt("apt-cache"), wanted)? else {
            continue;
        };
        let root = work.join("root");
        let mut name = format!("{}={full}", wanted.package);
        if let Some(beginning) = wanted.leads_to {
            name = dependency(apt("apt-cache").args(["depends", &name]), beginning)?;
        }
        step::run(
            &format!("download {}", wanted.package),
            apt("apt-get").args(["download", &name]),
        )?;
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").arg(downloaded(&work)?).arg(&root);
        step::run(&format!("unpack {}", wanted.package), &mut unpack)?;
        fs::rename(&root, target)
            .with_context(|| format!("move {} to {}", root.display(), target.display()))?;
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
        return Ok(true);
    }
    Ok(false)
}

fn private_apt(work: &Path) -> Result<PathBuf> {
    let work_path = work.display();
    fs::write(work.join("status"), "").context("write an empty package status")?;
    let config = work.join("apt.conf");
    let text = format!(
        "Dir::State \"{work_path}\";\n\
         Dir::State::lists \"{work_path}/lists\";\n\
         Dir::State::status \"{work_path}/status\";\n\
         Dir::Cache \"{work_path}/cache\";\n\
         Dir::Etc::SourceList \"{work_path}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n\
         Acquire::Check-Valid-Until \"false\";\n\
         APT::Get::List-Cleanup \"false\";\n\
         APT::Sandbox::User \"{}\";\n",
        env::var("USER").unwrap_or_else(|_| "root".to_owned()),
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    Ok(config)
}

/// The archives this machine's apt takes Debian's main suites from.
///
/// # Errors
/// apt knows none.
pub fn sites() -> Result<Vec<String>> {
    let format = "$(IDENTIFIER)|$(LABEL)|$(SITE)";
    let text = step::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let mut sites: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Packages|Debian|"))
        .map(str::to_owned)
        .collect();
    sites.sort();
    sites.dedup();
    if sites.is_empty() {
        bail!("apt knows no Debian archive: add one to its sources and run `apt-get update`");
    }
    Ok(sites)
}

fn source_line(site: &str, suite: &str) -> String {
    let options = if Path::new(KEYRING).is_file() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    format!("deb {options}{site} {suite} main\n")
}

/// The full Debian version of the package, the highest where several fit.
fn offered(apt_cache: &mut Command, wanted: &Wanted) -> Result<Option<String>> {
    let text = step::output(apt_cache.args(["madison", wanted.package]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|full| is_version(full, wanted.upstream))
        .map(str::to_owned))
}

/// The first dependency that `apt-cache depends` names and that begins so.
fn dependency(depends: &mut Command, beginning: &str) -> Result<String> {
    let text = step::output(depends)?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(beginning))
        .map(str::to_owned)
        .with_context(|| format!("find a dependency {beginning}… in {text:?}"))
}

/// Whether `full` is `upstream`, or continues it after a separator.
fn is_version(full: &str, upstream: &str) -> bool {
    full.strip_prefix(upstream).is_some_and(|rest| {
        upstream.is_empty() || rest.is_empty() || rest.starts_with(['.', '+', '-', '~'])
    })
}

fn downloaded(work: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(work).with_context(|| format!("list {}", work.display()))?;
    for entry in entries {
        let path = entry.context("read the download folder")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    bail!("apt downloaded no package into {}", work.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_ends_where_a_separator_is() {
        for (full, upstream, fits) in [
            ("1.95.0+dfsg1-2~bpo13+1", "1.95.0", true),
            ("1.95.01-1", "1.95.0", false),
            ("257.13-1~deb13u1", "257", true),
            ("2571-1", "257", false),
            ("262-1", "", true),
        ] {
            assert_eq!(is_version(full, upstream), fits, "{full} {upstream}");
        }
    }
}
