//! `osctl service import`: service files from a compose file. Starts nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use os_init::services::compose;
use serde::Serialize;
use updater::engine::install::open_registry;
use updater::registry::Reference;
use updater::registry::transport::Patience;
use updater::settings::Settings;

use crate::failure::{DONE, Failure, REFUSED};
use crate::tell;

/// Larger files are not read, in bytes.
const SIZE_MAX: u64 = 1 << 20;
/// A registry has so long to say which digest a tag has.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What became of one service.
#[derive(Debug, Serialize)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Where its file lies now.
    pub file: PathBuf,
    /// What was left out or is otherwise.
    pub notes: Vec<String>,
    /// Why the file cannot be used as it is.
    pub problem: Option<String>,
}

/// Converts `file` and writes a service file each into `folder`; the exit code.
///
/// # Errors
/// It cannot be read or understood, or a file of that name is there already.
pub async fn run(file: &Path, folder: &Path, offline: bool, json: bool) -> Result<u8, Failure> {
    let shown = file.display();
    let refused = |why: String| Failure::refused(format!("{shown}: {why}"));
    let text = read(file).map_err(|error| Failure::refused(format!("read {shown}: {error}")))?;
    let mut digests = BTreeMap::new();
    for image in compose::images(&text).map_err(refused)? {
        if !offline && !image.contains('@') && !digests.contains_key(&image) {
            let found = tokio::time::timeout(ANSWER_MAX, resolve(&image)).await;
            if let Ok(Some(by_digest)) = found {
                digests.insert(image, by_digest);
            }
        }
    }
    let imported = compose::convert(&text, &digests).map_err(refused)?;
    fs::create_dir_all(folder)
        .map_err(|error| Failure::refused(format!("make {}: {error}", folder.display())))?;
    let mut all = Vec::new();
    for service in imported {
        let path = folder.join(format!("{}.toml", service.name));
        // Never over a file of somebody's.
        fs::File::create_new(&path)
            .and_then(|mut made| made.write_all(service.text.as_bytes()))
            .map_err(|error| Failure::refused(format!("write {}: {error}", path.display())))?;
        let compose::Imported { name, notes, problem, .. } = service;
        all.push(Written { name, file: path, notes, problem });
    }
    let fine = all.iter().all(|it| it.problem.is_none());
    tell::imported(&all, json);
    Ok(if fine { DONE } else { REFUSED })
}

fn read(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(file)?.take(SIZE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The name by digest of an image that is named by a tag; none where its registry does not say.
async fn resolve(image: &str) -> Option<String> {
    let reference = Reference::parse(&whole(image)).ok()?;
    let settings = Settings::load(Path::new(os_init::config::RUNNING));
    let registry = open_registry(&settings, &reference, Patience::FIELD).ok()?;
    let manifest = registry.manifest(&reference).await.ok()?;
    Some(reference.at(manifest.digest).to_string())
}

/// With the registry that a short name means in a compose file.
fn whole(image: &str) -> String {
    const HUB: &str = "registry-1.docker.io";
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        Some(_) => format!("{HUB}/{image}"),
        None => format!("{HUB}/library/{image}"),
    }
}
