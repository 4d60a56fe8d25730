//! The services manager: a library with a thin `main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(os_init::services::manage::run()),
        Err(error) => Err(format!("start the services manager: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("os-services: {why}");
            ExitCode::from(111)
        }
    }
}
