//! `osctl service validate`: the same rules as at boot, before anything is changed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use os_init::services::file::ServiceFile;
use os_init::services::{built_in, definitions, operator};
use serde::Serialize;

use crate::failure::{DONE, Failure, REFUSED};
use crate::service::read;
use crate::tell;

/// What is to say of one file.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The file.
    pub file: String,
    /// The service that it describes, where it can be told.
    pub name: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// What it may do that a bare service may not.
    pub privileges: Vec<String>,
}

/// Checks the files; the exit code.
///
/// # Errors
/// A file cannot be read.
pub fn run(files: &[PathBuf], json: bool) -> Result<u8, Failure> {
    let mut verdicts = Vec::new();
    let mut parsed = Vec::new();
    for path in files {
        let shown = path.display().to_string();
        let (name, problem, privileges) = match ServiceFile::parse(&read(path)?) {
            Ok(file) => {
                let lies = path.parent() == Some(Path::new(operator::FOLDER));
                let wrong = lies && path.file_stem() != Some(OsStr::new(&file.name));
                let problem = wrong.then(|| format!("`name` is `{}`, unlike the file", file.name));
                let told = (Some(file.name.clone()), problem, file.privileges());
                parsed.push(file);
                told
            }
            Err(why) => (None, Some(why.to_string()), Vec::new()),
        };
        verdicts.push(Verdict { file: shown, name, problem, privileges });
    }
    // Elsewhere than on a machine, the built-in services are not known.
    let beside = built_in::all().ok();
    if let Some(built_in) = beside.clone() {
        let folder = operator::Folder::at(operator::FOLDER);
        let refused = definitions::refusals(built_in, &folder, &parsed).map_err(Failure::system)?;
        for verdict in &mut verdicts {
            let why = refused.iter().find(|(name, _)| verdict.name.as_ref() == Some(name));
            if let Some((_, why)) = why {
                verdict.problem = Some(why.to_string());
            }
        }
    }
    let fine = verdicts.iter().all(|verdict| verdict.problem.is_none());
    tell::verdicts(&verdicts, beside.is_some(), json);
    Ok(if fine { DONE } else { REFUSED })
}
