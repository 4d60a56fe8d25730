//! `fault-proxy LISTEN UPSTREAM [FAULTS]`: FAULTS is a JSON object of switches, see `faults.rs`.

use std::process::ExitCode;

use fault_proxy::{Faults, Proxy};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, faults) = match arguments.as_slice() {
        [listen, upstream] => (listen, upstream, "{}"),
        [listen, upstream, faults] => (listen, upstream, faults.as_str()),
        _ => {
            eprintln!("usage: fault-proxy LISTEN UPSTREAM [FAULTS]");
            return ExitCode::from(100);
        }
    };
    let faults: Faults = match serde_json::from_str(faults) {
        Ok(faults) => faults,
        Err(error) => {
            eprintln!("fault-proxy: switches: {error}");
            return ExitCode::from(100);
        }
    };
    match Proxy::start(listen, upstream, faults) {
        Ok(proxy) => {
            println!("listening at {}", proxy.address());
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("fault-proxy: listen at {listen}: {error}");
            ExitCode::from(111)
        }
    }
}
