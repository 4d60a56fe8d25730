//! The demo: a machine takes an update, goes back by hand, and goes back by itself.
//!
//! `cargo xtask demo` builds what is needed and runs this. It ends with a table and the same in
//! `demo.json` of the target folder.

use std::process::ExitCode;

fn main() -> ExitCode {
    let keep = std::env::args().skip(1).any(|arg| arg == "--keep");
    match vm_tests::demo::run(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(111)
        }
    }
}
