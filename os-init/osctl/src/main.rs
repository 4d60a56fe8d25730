//! `osctl`: the operator's hand on the machine. It asks and tells; it decides nothing.
//!
//! Reading order: [`arguments`] is the command line; [`status`] and [`service`] carry it out;
//! [`image`] has the updater pull; [`validate`] and [`import`] need no machine; [`tell`] words what they found; [`failure`] has the exit codes.

mod arguments;
mod failure;
mod image;
mod import;
mod service;
mod status;
mod tell;
mod validate;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::{CommandFactory as _, Parser as _};
use failure::{DONE, Failure, USAGE};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = !error.use_stderr();
            // A closed terminal is nobody to tell.
            let _ = error.print();
            return ExitCode::from(if asked { DONE } else { USAGE });
        }
    };
    let json = arguments.json;
    ExitCode::from(run(arguments).unwrap_or_else(|failure| {
        tell::failure(&failure, json);
        failure.code
    }))
}

fn run(arguments: Arguments) -> Result<u8, Failure> {
    let json = arguments.json;
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::system(format!("start: {error}")))
    };
    let pages = |error| Failure::system(format!("write the pages: {error}"));
    match arguments.command {
        Command::Status => runtime()?.block_on(status::run(json)),
        Command::Service(command) => runtime()?.block_on(service::run(command, json)),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "osctl", &mut std::io::stdout());
            Ok(DONE)
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(&folder).map_err(pages)?;
            clap_mangen::generate_to(Arguments::command(), folder).map_err(pages)?;
            Ok(DONE)
        }
    }
}
