//! `cargo xtask prove`: the power cuts, simulated and on a real machine's disk, the model checker
//! and the mutants, put together in `target/prove.json` and `target/prove.html`.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::{images, mutants, place, setup, step, tools};

/// Releases that the real machine's disk is recorded with.
const RELEASES: &[&str] = &["v1", "v2"];

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Some minutes.
    Quick,
    /// Hours, and every mutant.
    Full,
}

/// What was asked for.
struct Options {
    size: Size,
    seed: Option<String>,
    /// Sizes of the simulation, as `prove` takes them; they count more than `size`.
    simulated: Vec<String>,
    /// Sizes of the real machine's part, as `vm-prove` takes them.
    real: Vec<String>,
}

impl Options {
    fn of(size: Size) -> Self {
        Self { size, seed: None, simulated: Vec::new(), real: Vec::new() }
    }
}

/// Sizes of the simulation, and of the real machine's part.
const SIMULATED: [&str; 2] = ["--time", "--years"];
const REAL: [&str; 5] = ["--states", "--boots", "--kills", "--first-boots", "--old-files"];

/// `cargo xtask prove [--quick | --full] [--seed N]`, and single sizes.
///
/// # Errors
/// A part fails, which says what it found; or a word is unknown.
pub fn run(words: &[&str]) -> Result<()> {
    let mut options = Options::of(Size::Quick);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--quick" => options.size = Size::Quick,
            "--full" => options.size = Size::Full,
            "--seed" => {
                let seed: u64 = rest.next().and_then(|it| it.parse().ok()).context("--seed N")?;
                options.seed = Some(seed.to_string());
            }
            other if SIMULATED.contains(&other) || REAL.contains(&other) => {
                let number: u64 = rest
                    .next()
                    .and_then(|it| it.parse().ok())
                    .with_context(|| format!("{other} N"))?;
                let sizes = match SIMULATED.contains(&other) {
                    true => &mut options.simulated,
                    false => &mut options.real,
                };
                sizes.extend([other.to_owned(), number.to_string()]);
            }
            other => bail!(
                "no option {other}, there are --quick, --full, --seed N, {} N, {} N",
                SIMULATED.join(" N, "),
                REAL.join(" N, ")
            ),
        }
    }
    setup::run()?;
    tools::ensure()?;
    all(&options)
}

/// What needs no machine, at the quick size: among the tests, where the real machine's part is a
/// scenario, so that its boots fill the pauses of others.
///
/// # Errors
/// As [`run`].
pub fn without_machines() -> Result<()> {
    build_simulation()?;
    simulate(&Options::of(Size::Quick))?;
    check_model()
}

fn all(options: &Options) -> Result<()> {
    println!("\n== the flip, proven");
    let target = place::target();
    // Only what is known of these files is told.
    let list = target.join(mutants::LIST);
    if list.exists() && !mutants::list_is_of_this_tree()? {
        fs::remove_file(&list).with_context(|| format!("remove {}", list.display()))?;
    }
    let names: Vec<String> = RELEASES.iter().map(|&name| name.to_owned()).collect();
    images::build(&names)?;
    step::run("vm-prove", &mut cargo(&["build", "--locked", "-p", "vm-tests", "--bins"]))?;
    build_simulation()?;
    // A machine that is recorded leaves a processor idle: simulation and model compute there.
    thread::scope(|scope| {
        let simulated = scope.spawn(|| simulate(options).and_then(|()| check_model()));
        let real = real_machine(options);
        match simulated.join() {
            Ok(simulated) => simulated.and(real),
            Err(_) => bail!("the thread that simulates has ended by a panic"),
        }
    })?;
    if options.size == Size::Full {
        mutants::run(&[])?;
    }
    let mut report = program("prove");
    step::run("prove report", report.arg("report").arg(&target))?;
    println!("written: {0}/prove.json, {0}/prove.html", target.display());
    Ok(())
}

fn build_simulation() -> Result<()> {
    step::run("prove", &mut cargo(&["build", "--locked", "-p", "prove"]))?;
    let model = ["test", "--locked", "-p", "partition-layout", "--test", "model", "--no-run"];
    step::run("model", &mut cargo(&model))
}

fn simulate(options: &Options) -> Result<()> {
    // Machines have deadlines, this has none: it takes what they leave of the processors.
    let mut prove = Command::new("nice");
    prove.current_dir(place::root()).args(["-n", "19"]).arg(path_of("prove"));
    prove.arg(match options.size {
        Size::Quick => "--quick",
        Size::Full => "--full",
    });
    if options.size == Size::Full {
        prove.args(["--time", "3600", "--years", "100000"]);
    }
    prove.args(&options.simulated);
    prove.args(options.seed.iter().flat_map(|seed| ["--seed", seed]));
    let path = place::target().join("prove-simulation.json");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    step::run_into("simulated power cuts and lives", &mut prove, file)
}

fn check_model() -> Result<()> {
    let mut model = cargo(&["test", "--locked", "-p", "partition-layout", "--test", "model"]);
    model.args(["--", "--nocapture"]);
    let path = place::target().join("prove-model.log");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    step::run_into("model of the slot rules", &mut model, file)
}

fn real_machine(options: &Options) -> Result<()> {
    let mut prove = program("vm-prove");
    match options.size {
        Size::Quick => prove.arg("--quick"),
        Size::Full => {
            prove.args(["--states", "50000", "--boots", "200", "--kills", "300"]);
            prove.args(["--first-boots", "50", "--old-files", "1000000"])
        }
    };
    prove.args(&options.real);
    prove.args(options.seed.iter().flat_map(|seed| ["--seed", seed]));
    prove.env("BASCULE_TOOLS", tools::ensure()?);
    step::run_shown("power cuts on a real machine's disk", &mut prove)
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place::root()).args(words).arg("--target-dir").arg(place::target());
    cargo
}

fn path_of(program: &str) -> PathBuf {
    place::target().join("debug").join(program)
}

fn program(name: &str) -> Command {
    let mut program = Command::new(path_of(name));
    program.current_dir(place::root());
    program
}
