//! The operator's hand on the updater.

use std::process::ExitCode;

use clap::Parser as _;
use updater::cli;
use updater::cli::arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = !error.use_stderr();
            // A closed terminal is nobody to tell.
            let _ = error.print();
            return ExitCode::from(if asked { cli::DONE } else { cli::USAGE });
        }
    };
    if let Command::Completions { .. } | Command::Man { .. } = &arguments.command {
        return match cli::generate(&arguments.command) {
            Ok(()) => ExitCode::from(cli::DONE),
            Err(error) => {
                eprintln!("osupdate: write the pages: {error}");
                ExitCode::from(111)
            }
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::run(arguments))),
        Err(error) => {
            eprintln!("osupdate: start: {error}");
            ExitCode::from(111)
        }
    }
}
