//! Debian packages: resolving names to pinned files, and fetching those.
//!
//! An apt with its own lists, cache and empty package status does both. It checks the archive's
//! signature and uses the proxy that the machine has configured, and neither sees nor changes
//! what is installed there.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::lock::Pinned;
use crate::progress;
use crate::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// What no setting of the machine may loosen: a list without a signature by the archive's key is
/// an error, and so is one that could not be fetched (apt would go on with an older one). Given as
/// arguments, which outweigh every file.
const STRICT: [&str; 5] = [
    "Acquire::AllowInsecureRepositories=false",
    "Acquire::AllowWeakRepositories=false",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
    "APT::Get::AllowUnauthenticated=false",
    "APT::Update::Error-Mode=any",
];
/// A mirror on this machine is asked directly: a proxy's loopback is another one.
const DIRECT: [&str; 2] =
    ["Acquire::http::Proxy::127.0.0.1=DIRECT", "Acquire::http::Proxy::localhost=DIRECT"];

/// Where packages come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Folder that downloads are kept in.
    pub cache: PathBuf,
    /// Site with the main suites.
    main: String,
    /// Site with the security suites.
    security: String,
}

/// The folder for downloads: `$BASCULE_CACHE`, else `~/.cache/bascule`.
///
/// # Errors
/// Neither is known.
pub fn default_cache() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("BASCULE_CACHE") {
        return Ok(folder.into());
    }
    let home = env::var_os("HOME").context("neither BASCULE_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/bascule"))
}

impl Archive {
    /// The archive that the machine's apt is configured with, or `mirror` (its security suites
    /// are expected at the same address with `-security` behind).
    ///
    /// # Errors
    /// apt knows no Debian archive.
    pub fn of_machine(cache: &Path, mirror: Option<&str>) -> Result<Self> {
        let main = match mirror {
            Some(site) => site.trim_end_matches('/').to_owned(),
            None => configured_site()?,
        };
        let security = format!("{main}-security");
        Ok(Self { cache: cache.to_path_buf(), main, security })
    }

    fn site(&self, suite: &str) -> &str {
        if suite.ends_with("-security") { &self.security } else { &self.main }
    }

    /// Resolves `packages` and all they depend on in `suites`, without those `left_out`.
    ///
    /// # Errors
    /// A package is not there, or apt fails.
    pub fn resolve(
        &self,
        suites: &[String],
        packages: &[String],
        left_out: &BTreeSet<&str>,
    ) -> Result<Vec<Pinned>> {
        let work = self.cache.join("apt").join(suites.join("+"));
        let config = private_apt(&work)?;
        let lines: Vec<String> = suites
            .iter()
            .map(|it| format!("deb {}{} {it} main\n", signed_by(), self.site(it)))
            .collect();
        fs::write(work.join("sources.list"), lines.concat()).context("write sources.list")?;
        let apt = || {
            let mut command = Command::new("apt-get");
            command.env("APT_CONFIG", &config);
            with_options(&mut command, STRICT.iter().chain(&DIRECT));
            command
        };
        let bar = progress::turning("lists");
        run::quiet(apt().args(["update", "-qq"]), "apt")?;
        let mut install = apt();
        install.args(["install", "--print-uris", "-y", "-qq", "-o", "Acquire::ForceHash=SHA256"]);
        let said = run::output(install.args(packages), "apt")?;
        bar.finish_and_clear();
        let mut pinned = Vec::new();
        for line in String::from_utf8_lossy(&said).lines().filter(|line| line.starts_with('\'')) {
            let package = self.parse(line, suites).with_context(|| format!("apt said {line}"))?;
            if !left_out.contains(package.name.as_str()) {
                pinned.push(package);
            }
        }
        ensure!(!pinned.is_empty(), "apt resolved {} to nothing", packages.join(" "));
        Ok(pinned)
    }

    /// Reads a line of `apt-get --print-uris`: `'address' file size SHA256:hash`.
    fn parse(&self, line: &str, suites: &[String]) -> Result<Pinned> {
        let words: Vec<&str> = line.split(' ').collect();
        let [address, file, size, hash] = words.as_slice() else { bail!("not four words") };
        let address = address.trim_matches('\'');
        // The security site is the main one with more behind: it is asked first.
        let is_security = address.starts_with(&format!("{}/", self.security));
        let site = if is_security { &self.security } else { &self.main };
        let path = address.strip_prefix(site.as_str()).context("an unknown site")?;
        let suite = suites
            .iter()
            .find(|suite| suite.ends_with("-security") == is_security)
            .context("a suite that was not asked for")?;
        let name = file.trim_end_matches(".deb");
        let parts: Vec<&str> = name.split('_').collect();
        let [name, version, arch] = parts.as_slice() else { bail!("not name_version_arch") };
        Ok(Pinned {
            suite: suite.clone(),
            name: (*name).to_owned(),
            version: version.replace("%3a", ":"),
            arch: (*arch).to_owned(),
            size: size.parse().context("size")?,
            sha256: hash.strip_prefix("SHA256:").context("no SHA-256")?.to_owned(),
            path: path.trim_start_matches('/').replace("%2b", "+").replace("%7e", "~"),
        })
    }

    /// Fetches what the cache does not hold yet; the files in the order of `packages`. An
    /// interrupted download goes on where it stopped.
    ///
    /// # Errors
    /// A file is gone from the archive (names `refresh`, the command that makes the lock anew),
    /// differs from its pin, or cannot be fetched now.
    pub fn fetch(&self, packages: &[Pinned], refresh: &str) -> Result<Vec<PathBuf>> {
        let folder = self.cache.join("packages");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let bar = progress::bytes("packages", packages.iter().map(|it| it.size).sum());
        let mut files = Vec::new();
        for package in packages {
            bar.set_message(package.name.clone());
            files.push(self.fetch_one(package, &folder, refresh)?);
            bar.inc(package.size);
        }
        bar.finish_and_clear();
        Ok(files)
    }

    fn fetch_one(&self, package: &Pinned, folder: &Path, refresh: &str) -> Result<PathBuf> {
        let target = folder.join(format!("{}.deb", package.sha256));
        // A damaged cache costs time, never an image.
        if target.exists() && sha256(&target)? == package.sha256 {
            return Ok(target);
        }
        // Under its own name until it is whole: apt goes on where an earlier download stopped.
        let partial = folder.join(format!("{}.part", package.sha256));
        let address = format!("{}/{}", self.site(&package.suite), package.path);
        let mut download = Command::new(HELPER);
        with_options(&mut download, DIRECT.iter().chain(&["APT::Sandbox::User="]));
        download.args(["download-file", &address]).arg(&partial);
        download.arg(format!("SHA256:{}", package.sha256));
        let (name, version) = (&package.name, &package.version);
        if let Err(error) = run::quiet(&mut download, "apt") {
            // Whole and wrong: there is nothing to go on with.
            if partial.metadata().is_ok_and(|meta| meta.len() >= package.size) {
                fs::remove_file(&partial)
                    .with_context(|| format!("remove {}", partial.display()))?;
            }
            return Err(if is_gone(&format!("{error:#}")) {
                error.context(format!(
                    "{name} {version} is gone from the archive ({address}), which keeps only the \
                     newest versions: refresh the lock with `{refresh}`"
                ))
            } else {
                error.context(format!("fetch {name} {version} from {address}"))
            });
        }
        ensure!(
            sha256(&partial)? == package.sha256,
            "{address} is not the pinned {name} {version}"
        );
        fs::rename(&partial, &target)
            .with_context(|| format!("keep {} as {}", partial.display(), target.display()))?;
        Ok(target)
    }
}

/// Whether apt's words say that the archive answered, and has no such file.
fn is_gone(said: &str) -> bool {
    ["404  Not Found", "410  Gone", "No such file or directory"]
        .iter()
        .any(|words| said.contains(words))
}

fn with_options<'a>(command: &mut Command, options: impl IntoIterator<Item = &'a &'a str>) {
    for option in options {
        command.args(["-o", option]);
    }
}

/// SHA-256 of a file, in hex.
///
/// # Errors
/// It cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block).with_context(|| format!("read {}", path.display()))?;
        match block.get(..read) {
            Some(data) if read > 0 => hasher.update(data),
            _ => return Ok(partition_layout::verity::hex(&hasher.finalize())),
        }
    }
}

fn signed_by() -> String {
    if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() }
}

fn configured_site() -> Result<String> {
    let format = "$(IDENTIFIER)|$(LABEL)|$(SITE)";
    let said =
        run::output(Command::new("apt-get").args(["indextargets", "--format", format]), "apt")?;
    String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| line.strip_prefix("Packages|Debian|"))
        .map(|site| site.trim_end_matches('/').to_owned())
        .next()
        .context("apt knows no Debian archive: name one with --mirror, or run `apt-get update`")
}

fn private_apt(work: &Path) -> Result<PathBuf> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(folder))
            .with_context(|| format!("create {folder} in {}", work.display()))?;
    }
    let at = work.display();
    fs::write(work.join("status"), "").context("write an empty package status")?;
    let config = work.join("apt.conf");
    let text = format!(
        "Dir::State \"{at}\";\nDir::State::lists \"{at}/lists\";\n\
         Dir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
         Dir::Etc::SourceList \"{at}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"/dev/null\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n\
         Acquire::Check-Valid-Until \"false\";\nAPT::Install-Recommends \"false\";\n\
         APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\n\
         APT::Sandbox::User \"\";\n"
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: &str = "image-builder lock spec.toml --update";

    /// An archive in a folder of its own, with one file in it.
    fn archive(name: &str) -> (Archive, Pinned, PathBuf) {
        let folder = env::temp_dir().join(format!("archive-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("site/pool")).unwrap();
        let file = folder.join("site/pool/a_1_all.deb");
        fs::write(&file, "package").unwrap();
        let site = format!("copy://{}", folder.join("site").display());
        let archive = Archive::of_machine(&folder.join("cache"), Some(&site)).unwrap();
        let pinned = Pinned {
            suite: "trixie".into(),
            name: "a".into(),
            version: "1".into(),
            arch: "all".into(),
            size: 7,
            sha256: sha256(&file).unwrap(),
            path: "pool/a_1_all.deb".into(),
        };
        (archive, pinned, folder)
    }

    #[test]
    fn a_pinned_file_is_fetched_once_and_kept() {
        let (archive, pinned, folder) = archive("kept");
        let files = archive.fetch(std::slice::from_ref(&pinned), REFRESH).unwrap();
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), "package");
        fs::remove_dir_all(folder.join("site")).unwrap();
        assert_eq!(archive.fetch(&[pinned], REFRESH).unwrap(), files);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_gone_names_the_command_that_helps() {
        let (archive, pinned, folder) = archive("gone");
        fs::remove_file(folder.join("site/pool/a_1_all.deb")).unwrap();
        let error = format!("{:#}", archive.fetch(&[pinned], REFRESH).unwrap_err());
        fs::remove_dir_all(folder).unwrap();
        assert!(error.contains("a 1 is gone") && error.contains(REFRESH), "{error}");
    }

    #[test]
    fn a_file_that_differs_from_its_pin_is_refused() {
        let (archive, pinned, folder) = archive("altered");
        fs::write(folder.join("site/pool/a_1_all.deb"), "packagE").unwrap();
        let refused = archive.fetch(&[pinned], REFRESH).is_err();
        let kept = fs::read_dir(folder.join("cache/packages"))
            .unwrap()
            .flatten()
            .any(|it| it.path().extension().is_some_and(|extension| extension == "deb"));
        fs::remove_dir_all(folder).unwrap();
        assert!(refused && !kept);
    }

    #[test]
    fn a_damaged_file_in_the_cache_is_fetched_anew() {
        let (archive, pinned, folder) = archive("damaged");
        let fetch = || archive.fetch(std::slice::from_ref(&pinned), REFRESH).unwrap();
        let kept = fetch().remove(0);
        fs::write(&kept, "packagE").unwrap();
        assert_eq!(fs::read_to_string(&fetch()[0]).unwrap(), "package");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn lists_without_the_archives_signature_are_refused() {
        let (archive, _, folder) = archive("unsigned");
        let lists = folder.join("site/dists/trixie");
        fs::create_dir_all(lists.join("main/binary-amd64")).unwrap();
        fs::write(lists.join("main/binary-amd64/Packages"), "").unwrap();
        let empty = Sha256::digest("");
        let release = format!(
            "Suite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: main\n\
             Date: Thu, 01 Jan 2026 00:00:00 UTC\n\
             SHA256:\n {} 0 main/binary-amd64/Packages\n",
            partition_layout::verity::hex(&empty)
        );
        fs::write(lists.join("Release"), release).unwrap();
        let resolved = archive.resolve(&["trixie".to_owned()], &["a".to_owned()], &BTreeSet::new());
        fs::remove_dir_all(folder).unwrap();
        let error = format!("{:#}", resolved.unwrap_err());
        assert!(error.contains("is not signed"), "{error}");
    }

    #[test]
    fn apt_words_become_a_pin() {
        let (archive, _, folder) = archive("words");
        fs::remove_dir_all(folder).unwrap();
        let suites = ["trixie".to_owned(), "trixie-security".to_owned()];
        let hash = "ab".repeat(32);
        let line = format!(
            "'{}/pool/updates/main/k/krb5/libkrb5-3_1.21%2bb1_amd64.deb' \
             libkrb5-3_1%3a1.21+b1_amd64.deb 328056 SHA256:{hash}",
            archive.security
        );
        let pinned = archive.parse(&line, &suites).unwrap();
        assert_eq!(pinned.suite, "trixie-security");
        assert_eq!(pinned.version, "1:1.21+b1");
        assert_eq!(pinned.path, "pool/updates/main/k/krb5/libkrb5-3_1.21+b1_amd64.deb");
        assert!(archive.parse(&line.replace("SHA256", "MD5"), &suites).is_err());
    }
}
