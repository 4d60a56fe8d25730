//! What a container's root is mounted from: the OS itself, or an overlay above an image.
//!
//! The overlay's upper layer is in `/run`, and new at each start: the image is never changed, and the
//! runtime finds, or makes, the places of its mounts there.

use std::fs;
use std::io;
use std::path::Path;

use containerd_client::types::Mount;

use super::images::Process;
use crate::hardware;

/// Where the upper layers lie, a folder for each service that runs by an image.
const FOLDER: &str = "/run/bascule/roots";

/// The mount of a service's root.
///
/// # Errors
/// A message, when the upper layer cannot be made or the image is not there.
pub fn of(name: &str, process: &Process) -> Result<Mount, String> {
    let Some(lower) = &process.root else {
        return Ok(Mount {
            r#type: "bind".into(),
            source: "/".into(),
            options: vec!["bind".into(), "ro".into()],
            ..Mount::default()
        });
    };
    if !lower.is_dir() {
        return Err(format!("there is no {}", lower.display()));
    }
    let place = Path::new(FOLDER).join(name);
    let (upper, work) = (place.join("upper"), place.join("work"));
    remove(name)
        .and_then(|()| fs::create_dir_all(&upper))
        .and_then(|()| fs::create_dir(&work))
        .map_err(|error| format!("make {}: {error}", place.display()))?;
    hardware::load_file_system("overlay");
    let layer = |key: &str, path: &Path| format!("{key}={}", path.display());
    Ok(Mount {
        r#type: "overlay".into(),
        source: "overlay".into(),
        options: vec![layer("lowerdir", lower), layer("upperdir", &upper), layer("workdir", &work)],
        ..Mount::default()
    })
}

/// Removes what a service has written to its root.
///
/// # Errors
/// The system's.
pub fn remove(name: &str) -> io::Result<()> {
    match fs::remove_dir_all(Path::new(FOLDER).join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
