//! Power cuts on the disk of a real machine: records an update, its confirmation and a rollback,
//! rebuilds the disk as power cuts would have left it, and boots some of these disks for real.
//!
//! `vm-prove [--quick] [--states N] [--boots N] [--kills N] [--first-boots N] [--old-files N] [--seed N]`;
//! what was seen is in `prove-vm.json` of the target folder. It ends with 111 when one does not boot.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use vm_tests::prove::run::{self, Size};

fn main() -> ExitCode {
    match size().and_then(run::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-prove: {error:#}");
            ExitCode::from(111)
        }
    }
}

fn size() -> Result<Size> {
    let mut size = Size::QUICK;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--quick" {
            size = Size { seed: size.seed, ..Size::QUICK };
            continue;
        }
        let number: u64 = words
            .next()
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("{word} wants a number"))?;
        let length = usize::try_from(number).context("a number that is too large")?;
        match word.as_str() {
            "--states" => size.states = length,
            "--boots" => size.boots = length,
            "--kills" => size.kills = count(number)?,
            "--first-boots" => size.first_boots = count(number)?,
            "--old-files" => size.old_files = count(number)?,
            "--seed" => size.seed = number,
            _ => bail!(
                "{word}? There are --quick, --states, --boots, --kills, --first-boots, --old-files, \
                 --seed"
            ),
        }
    }
    Ok(size)
}

fn count(number: u64) -> Result<u32> {
    u32::try_from(number).context("a number that is too large")
}
