//! `cargo xtask demo`: builds what is shown, then hands over to `vm-demo`.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{images, place, setup, step};

/// The releases that are shown: the first, a good second, one whose services never get healthy.
const RELEASES: &[&str] = &["v1", "v2", "unhealthy"];

/// Builds and shows. The only option is `--keep`.
///
/// # Errors
/// A build fails, a step of the demo fails, or an option is unknown.
pub fn run(options: &[&str]) -> Result<()> {
    if let Some(unknown) = options.iter().find(|option| **option != "--keep") {
        bail!("no option {unknown}, there is only --keep");
    }
    setup::run()?;
    let names: Vec<String> = RELEASES.iter().map(|&name| name.to_owned()).collect();
    images::build(&names)?;
    let mut build = Command::new("cargo");
    build.current_dir(place::root()).args(["build", "--locked", "-p", "vm-tests", "--bins"]);
    step::run("vm-demo", &mut build)?;
    let mut demo = Command::new(place::target().join("debug/vm-demo"));
    demo.current_dir(place::root()).args(options);
    step::run_shown("demo", &mut demo)
}
