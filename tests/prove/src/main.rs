//! `prove`: runs the simulations and prints one JSON object with their figures.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use prove::crash::Limits;
use prove::run::{Options, crashes};

const USAGE: &str = "usage: prove [--quick | --full] [--seed N] [--time SECONDS] [--only WORDS]";
/// The seed where none is given.
const SEED: u64 = 1;

fn options() -> Result<Options, String> {
    let mut options = Options { seed: SEED, limits: Limits::QUICK, time: None, only: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word}: a value is missing"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: no number"));
        match word.as_str() {
            "--quick" => options.limits = Limits::QUICK,
            "--full" => options.limits = Limits::FULL,
            "--seed" => options.seed = number(value()?)?,
            "--time" => options.time = Some(Duration::from_secs(number(value()?)?)),
            "--only" => options.only = Some(value()?),
            other => return Err(format!("{other} is not known; {USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("prove: {why}");
            return ExitCode::from(100);
        }
    };
    let begun = Instant::now();
    let crashes = crashes(&options);
    for failure in &crashes.failures {
        eprintln!("BROKEN: {}", failure.what);
        eprintln!("  in: {} (seed {})", failure.scenario, failure.seed);
        for line in &failure.history {
            eprintln!("  {line}");
        }
    }
    let report = serde_json::json!({
        "seed": options.seed,
        "seconds": begun.elapsed().as_secs(),
        "crash_states": crashes.total(),
        "crash_states_by_operation": crashes.states,
        "unbootable": crashes.unbootable,
        "cut_points": crashes.cuts,
        "cut_points_seeded": crashes.seeded_cuts,
        "boots": crashes.boots,
        "failures": crashes.failures.len(),
    });
    println!("{report}");
    if crashes.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
