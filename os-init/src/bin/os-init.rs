//! One program, by who calls it: `/init` of the initrd, PID 1 of the root, the record helper
//! (`os-init record`), a service without containerd (`os-init direct NAME`), and `reboot` and
//! `poweroff`.

use os_init::console::warn;
use os_init::control::{self, Request};
use os_init::initrd::{self, Failure};
use os_init::services::built_in;
use os_init::services::direct::become_service;
use os_init::{pid1, record};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default().to_string();
    match (name.as_str(), args.next().as_deref()) {
        _ if initrd::is_here() => give_up(initrd::run()),
        _ if std::process::id() == 1 => pid1::run(),
        ("reboot", _) | (_, Some("reboot")) => ask(&Request::Reboot),
        ("poweroff" | "halt" | "shutdown", _) | (_, Some("poweroff")) => ask(&Request::Poweroff),
        (_, Some("record")) => match record::server::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("os-init record: {why}");
                ExitCode::from(111)
            }
        },
        (_, Some("direct")) => direct(&args.next().unwrap_or_default()),
        _ => {
            eprintln!("usage: reboot | poweroff");
            ExitCode::from(100)
        }
    }
}

/// Becomes the built-in service `name`.
fn direct(name: &str) -> ExitCode {
    let Err(why) = built_in::one(name).and_then(|file| become_service(&file));
    eprintln!("os-init: {why}");
    ExitCode::from(111)
}

/// The end of an initrd that cannot go on: this boot has failed, and the loader decides again.
fn give_up(failure: Failure) -> ExitCode {
    let (Failure::Boot(why) | Failure::Corrupt(why)) = failure;
    warn(&format!("boot failed: {why}; rebooting"));
    // Time to read the line, and for a serial line to drain.
    std::thread::sleep(Duration::from_secs(3));
    let refused = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    warn(&format!("reboot: {refused:?}"));
    ExitCode::from(111)
}

fn ask(request: &Request) -> ExitCode {
    match control::ask(request) {
        Ok(answer) if answer.contains("\"ok\"") => ExitCode::SUCCESS,
        Ok(answer) => {
            eprintln!("os-init refuses: {}", answer.trim());
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("ask os-init at {}: {error}", control::SOCKET);
            ExitCode::from(111)
        }
    }
}
