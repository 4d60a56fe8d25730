//! `cargo xtask …`: one command for each thing a person does with this repository.
//!
//! Reading order: [`packages`] and [`setup`] (what a machine needs), [`images`] (what is built),
//! [`checks`] (what is tested), [`mutants`] (whether the tests would see a fault), [`demo`] (what is
//! shown). [`step`] runs commands with progress.

mod checks;
mod demo;
mod fuzz;
mod images;
mod keys;
mod mutants;
mod packages;
mod parallel;
mod place;
mod prove;
mod setup;
mod stamp;
mod step;
mod tools;
mod uefi_target;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup           install the Debian packages and cargo tools that are missing
  images [NAME…]  build device binaries, loader, keys and the releases of tests/images
  test [STEP…]    every test there is, or the named steps (see `cargo xtask test --list`)
  fuzz [--time SECONDS] [TARGET…]
                  run fuzz targets for a minute each, or so long
  prove [--quick | --full] [--seed N]
                  every power cut, simulated and on a real machine's disk; target/prove.html
  mutants [--list] [--json] [NAME…]
                  break the product in each way of tests/mutants: does a test see it?
  demo [--keep]   build two releases, boot, update, roll back; table and target/demo.json

setup runs by itself before the others.
Exit codes: 0 done, 100 usage, 111 failed.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["setup"] => setup::run(),
        ["images", names @ ..] => images::run(names),
        ["test", "--list"] => checks::list(),
        ["test", steps @ ..] => checks::run(steps),
        ["mutants", words @ ..] => mutants::run(words),
        ["demo", options @ ..] => demo::run(options),
        ["prove", words @ ..] => prove::run(words),
        ["fuzz", words @ ..] => fuzz::run(words),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(100);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {}: {error:#}", words.join(" "));
            ExitCode::from(111)
        }
    }
}
