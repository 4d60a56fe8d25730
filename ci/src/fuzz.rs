//! `cargo xtask fuzz`: the fuzz targets, built with coverage counters and run for a time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{parallel, place, setup, step};

/// Seconds for each target among the tests: that it starts, and that nothing shallow is broken.
const SMOKE_S: u32 = 3;
/// Seconds for each target where a person states none.
const RUN_S: u32 = 60;
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How long, and from where.
struct Run {
    seconds: u32,
    /// The same choices each time: a test is not red by chance.
    seed: Option<u32>,
}

/// Every target for a moment, with the same choices each time.
///
/// # Errors
/// A target cannot be built, or found something.
pub fn smoke() -> Result<()> {
    let places = Places::new();
    places.build()?;
    println!("\n== fuzz smoke, {SMOKE_S} s each");
    places.run(&places.names()?, &Run { seconds: SMOKE_S, seed: Some(1) })
}

/// `cargo xtask fuzz [--time SECONDS] [TARGET…]`: the named targets, or all, with new choices.
/// What is found lies in `target/fuzz`, and what was learnt too, for the next run.
///
/// # Errors
/// As [`smoke`], or the words are not understood.
pub fn run(words: &[&str]) -> Result<()> {
    let (seconds, named) = match words {
        ["--time", time, named @ ..] => {
            (time.parse().with_context(|| format!("read {time:?} as seconds"))?, named)
        }
        ["--time"] => bail!("--time wants the seconds for each target"),
        named => (RUN_S, named),
    };
    let places = Places::new();
    let all = places.names()?;
    for name in named {
        ensure!(all.iter().any(|it| it == name), "no target {name}, there are: {}", all.join(" "));
    }
    let chosen: Vec<String> =
        if named.is_empty() { all } else { named.iter().map(|&name| name.to_owned()).collect() };
    setup::run()?;
    places.build()?;
    places.run(&chosen, &Run { seconds, seed: None })
}

/// Where the targets are and where they are built.
struct Places {
    folder: PathBuf,
    target_dir: PathBuf,
}

impl Places {
    fn new() -> Self {
        Self { folder: place::root().join("tests/fuzz"), target_dir: place::target().join("fuzz") }
    }

    /// The flags are those of cargo-fuzz without the address sanitizer: the fuzzed crates forbid
    /// `unsafe`, what is looked for are panics.
    fn build(&self) -> Result<()> {
        let flags = [
            "--cfg=fuzzing",
            "-Cpasses=sancov-module",
            "-Cllvm-args=-sanitizer-coverage-level=4",
            "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
            "-Cllvm-args=-sanitizer-coverage-pc-table",
            "-Cllvm-args=-sanitizer-coverage-trace-compares",
            "-Cdebug-assertions",
            "-Coverflow-checks",
        ];
        let mut build = Command::new("cargo");
        build.args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"]);
        build.arg(&self.target_dir).current_dir(&self.folder);
        build.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        step::run("fuzz targets", &mut build)
    }

    /// One file each.
    fn names(&self) -> Result<Vec<String>> {
        let sources = self.folder.join("fuzz_targets");
        let list = || format!("list {}", sources.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&sources).with_context(list)? {
            let path = entry.with_context(list)?.path();
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
        names.sort();
        Ok(names)
    }

    fn run(&self, names: &[String], run: &Run) -> Result<()> {
        parallel::each(names, |name| self.run_one(name, run))
    }

    fn run_one(&self, name: &str, run: &Run) -> Result<()> {
        let program = self.target_dir.join(TARGET).join("release").join(name);
        // The first folder is written to.
        let learnt = match run.seed {
            Some(_) => self.target_dir.join("smoke").join(name),
            None => self.target_dir.join("corpus").join(name),
        };
        if run.seed.is_some() && learnt.exists() {
            fs::remove_dir_all(&learnt).with_context(|| format!("empty {}", learnt.display()))?;
        }
        fs::create_dir_all(&learnt).with_context(|| format!("make {}", learnt.display()))?;
        let mut fuzz = Command::new(program);
        fuzz.arg(&learnt);
        let seeds = self.folder.join("corpus").join(name);
        if seeds.is_dir() {
            fuzz.arg(seeds);
        }
        if let Some(seed) = run.seed {
            fuzz.arg(format!("-seed={seed}"));
        }
        fuzz.arg(format!("-max_total_time={}", run.seconds)).arg("-print_final_stats=1");
        fuzz.arg(format!("-artifact_prefix={}/", self.target_dir.display()));
        step::run(&format!("fuzz {name}"), &mut fuzz)?;
        println!("fuzz {name} ... ok");
        Ok(())
    }
}
