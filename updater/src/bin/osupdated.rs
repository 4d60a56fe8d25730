//! The updater's daemon.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use updater::daemon::{Daemon, service, watch};
use updater::failure::Failure;
use updater::site::{SOCKET, Site};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => daemon(),
        ["--self-test"] => Site::load().and_then(|site| updater::self_test::run(&site)),
        _ => {
            eprintln!("usage: osupdated [--self-test]");
            return ExitCode::from(updater::cli::USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("osupdated: {failure}");
            ExitCode::from(failure.class.exit_code())
        }
    }
}

fn daemon() -> Result<(), Failure> {
    let site = Site::load()?;
    let told = |error: String| Failure::new(updater::failure::Class::System, "daemon", error);
    // One thread for the network. Threads of their own have the slot, an image of a service, and names
    // that are looked up. Keeps memory small.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| told(format!("start: {error}")))?;
    let ended = runtime.block_on(async {
        // The first process of a PID namespace gets no signal that it does not ask for.
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|error| told(format!("watch for TERM: {error}")))?;
        let daemon = Daemon::new(site);
        tokio::spawn(watch::run(daemon.clone()));
        tokio::select! {
            served = service::serve(daemon, Path::new(SOCKET)) => served.map_err(told),
            _ = terminate.recv() => Ok(()),
        }
    });
    // An apply in the middle is cut as by a power cut, which it is made for; the next one resumes.
    runtime.shutdown_background();
    ended
}
