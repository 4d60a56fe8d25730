//! `prove`: runs the simulations and prints one JSON object with their figures. `prove report
//! FOLDER` puts the parts of a whole proof together.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use prove::crash::Limits;
use prove::faults;
use prove::lives::{Counts, YEAR, live};
use prove::run::{Failure, Options, crashes, lives};

const USAGE: &str = "usage: prove [--tiny | --quick | --full] [--seed N] [--time SECONDS] [--only WORDS] \
                     [--years MACHINE_YEARS] [--life SEED]\n       prove report FOLDER";
/// The seed where none is given.
const SEED: u64 = 1;

fn options() -> Result<Options, String> {
    let mut options = Options {
        seed: SEED,
        limits: Limits::QUICK,
        time: None,
        only: None,
        machine_years: 1200,
        years: 4,
        life: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word}: a value is missing"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: no number"));
        match word.as_str() {
            "--quick" => options.limits = Limits::QUICK,
            "--tiny" => options.limits = Limits::TINY,
            "--full" => options.limits = Limits::FULL,
            "--seed" => options.seed = number(value()?)?,
            "--time" => options.time = Some(Duration::from_secs(number(value()?)?)),
            "--years" => options.machine_years = number(value()?)?,
            "--life" => options.life = Some(number(value()?)?),
            "--only" => options.only = Some(value()?),
            other => return Err(format!("{other} is not known; {USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, folder] = words.as_slice()
        && word == "report"
    {
        return match prove::report::write(Path::new(folder)) {
            Ok(_) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("prove report: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("prove: {why}");
            return ExitCode::from(100);
        }
    };
    let begun = Instant::now();
    if let Some(life) = options.life {
        let mut counts = Counts::default();
        let lived = live(life, options.years * YEAR, &mut counts);
        println!("{counts:?}");
        return match lived {
            Ok(()) => ExitCode::SUCCESS,
            Err(broken) => {
                println!("BROKEN: {}\n  {}", broken.what, broken.history.join("\n  "));
                ExitCode::FAILURE
            }
        };
    }
    let crashes = crashes(&options);
    let faults = faults::all(options.seed, options.limits.foreign_tables, options.limits.one_in);
    let crash_seconds = begun.elapsed().as_secs_f64();
    let lives = lives(options.seed, options.machine_years, options.years);
    let damaged = faults.broken.as_ref().map(|(what, history)| Failure {
        scenario: "damage without a cut".into(),
        seed: options.seed,
        what: what.clone(),
        history: history.clone(),
    });
    let failures: Vec<&Failure> =
        crashes.failures.iter().chain(&damaged).chain(&lives.failures).collect();
    for failure in &failures {
        tell(failure);
    }
    let counts = lives.counts;
    let report = serde_json::json!({
        "seed": options.seed,
        "seconds": begun.elapsed().as_secs_f64(),
        "crash_seconds": crash_seconds,
        "crash_states": crashes.total(),
        "crash_states_by_operation": crashes.states,
        "unbootable": crashes.unbootable,
        "cut_points": crashes.cuts,
        "cut_points_seeded": crashes.seeded_cuts,
        "boots": crashes.boots,
        "damaged_states": faults.states,
        "machine_years": counts.days / u64::from(YEAR),
        "lives": {
            "starts": counts.starts,
            "power_cuts": counts.cuts,
            "power_cuts_inside": counts.cuts_inside,
            "releases": counts.releases,
            "updates": counts.updates,
            "fallbacks": counts.fallbacks,
            "commands": counts.commands,
            "decays": counts.decays,
            "forgotten": counts.forgotten,
        },
        "failures": failures.len(),
    });
    println!("{report}");
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(failure: &Failure) {
    eprintln!("BROKEN: {}", failure.what);
    eprintln!("  in: {} (--seed {})", failure.scenario, failure.seed);
    for line in &failure.history {
        eprintln!("  {line}");
    }
}
