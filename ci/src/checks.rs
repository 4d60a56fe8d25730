//! `cargo xtask test`: every test there is, cheap ones first, whole machines last.
//!
//! A failed step does not hide the ones after it. The scenarios run last, so that the output
//! ends with the test runner's own result lines.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Result, bail};

use crate::{fuzz, images, place, prove, setup, step, tools, uefi_target};

/// The version whose rules deny.toml is written for.
const DENY_VERSION: &str = "0.20.2";

struct Step {
    name: &'static str,
    does: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", does: "cargo fmt --check, all workspaces", run: fmt },
    Step { name: "clippy", does: "cargo clippy -D warnings, all workspaces", run: clippy },
    Step { name: "deny", does: "bans, licences, sources of all dependencies", run: deny },
    Step { name: "unit", does: "unit and property tests of every crate", run: unit },
    Step {
        name: "loader",
        does: "the loader: its pure part, and under firmware with every stub",
        run: loader,
    },
    Step { name: "fuzz", does: "each fuzz target for a few seconds", run: fuzz::smoke },
    Step {
        name: "prove",
        does: "the flip: simulated power cuts and lives, the model of the slot rules (real disks: vm)",
        run: prove::without_machines,
    },
    Step { name: "vm", does: "whole machines: every scenario of tests/vm", run: machines },
];

/// Prints the steps.
///
/// # Errors
/// Never.
pub fn list() -> Result<()> {
    for step in STEPS {
        println!("{:<8} {}", step.name, step.does);
    }
    Ok(())
}

/// Runs the named steps, or all.
///
/// # Errors
/// A step failed (all have run), or a name is unknown.
pub fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|it| it.name != **name)) {
        bail!("no step {unknown}, see `cargo xtask test --list`");
    }
    setup::run()?;
    tools::ensure()?;
    let mut failed = Vec::new();
    for step in STEPS {
        if !names.is_empty() && !names.contains(&step.name) {
            continue;
        }
        if let Err(error) = (step.run)() {
            eprintln!("step {} failed: {error:#}", step.name);
            failed.push(step.name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Workspaces outside the main one.
fn other_workspaces() -> Vec<PathBuf> {
    ["kernel/loader", "tests/fuzz"]
        .iter()
        .map(|folder| place::root().join(folder))
        .filter(|folder| folder.join("Cargo.toml").exists())
        .collect()
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place::root()).args(words);
    cargo
}

fn fmt() -> Result<()> {
    step::run("fmt", &mut cargo(&["fmt", "--all", "--check"]))?;
    for folder in other_workspaces() {
        let name = format!("fmt {}", folder.file_name().unwrap_or_default().display());
        step::run(&name, cargo(&["fmt", "--check"]).current_dir(folder))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let words = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    step::run("clippy", &mut cargo(&words))?;
    let loader = place::root().join("kernel/loader");
    let words = ["clippy", "--all-targets", "--locked", "--target-dir"];
    let mut command = cargo(&words);
    command.arg(place::target().join("loader")).args(["--", "-D", "warnings"]);
    step::run("clippy loader", command.current_dir(loader))
}

fn deny() -> Result<()> {
    let tools = place::cache().join("tools").join(format!("cargo-deny-{DENY_VERSION}"));
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        println!("setup: builds cargo-deny {DENY_VERSION} once, into {}", tools.display());
        let mut install = cargo(&["install", "--locked", "--quiet", "--version", DENY_VERSION]);
        install.arg("cargo-deny").arg("--root").arg(&tools);
        step::run("cargo install cargo-deny", &mut install)?;
    }
    let mut folders = vec![place::root()];
    folders.extend(other_workspaces());
    for folder in folders {
        let name = format!("deny {}", folder.file_name().unwrap_or_default().display());
        // Of every platform, since the policy is; asks the network only for what is missing.
        let mut fetch = cargo(&["fetch", "--locked"]);
        step::run(&format!("fetch {name}"), fetch.current_dir(&folder))?;
        let mut check = Command::new(&program);
        check.current_dir(&folder).args(["--offline", "--locked", "--config"]);
        check.arg(place::root().join("deny.toml")).args(["check", "bans", "licenses", "sources"]);
        step::run(&name, &mut check)?;
    }
    Ok(())
}

fn unit() -> Result<()> {
    let words = ["test", "--workspace", "--exclude", "vm-tests", "--locked", "--no-fail-fast"];
    let mut command = cargo(&words);
    step::run_shown("unit and property tests", command.env("BASCULE_TOOLS", tools::ensure()?))
}

fn loader() -> Result<()> {
    uefi_target::test_loader(&place::root())
}

fn machines() -> Result<()> {
    images::build(&images::releases()?)?;
    step::run("build scenarios", &mut cargo(&["test", "-p", "vm-tests", "--locked", "--no-run"]))?;
    let words = ["test", "-p", "vm-tests", "--locked", "--lib", "--test", "scenarios"];
    let mut command = cargo(&words);
    // One more than machines may run: a test that waits for a machine holds up none that needs none.
    let threads = 3 * thread::available_parallelism().map_or(1, usize::from) + 1;
    command.args(["--no-fail-fast", "--"]).arg(format!("--test-threads={threads}"));
    // An error says where it came from in words.
    command.env("RUST_BACKTRACE", "0").env("BASCULE_TOOLS", tools::ensure()?);
    step::run_shown("whole machines", &mut command)
}
