//! Lines for people, of PID 1 and of the services manager: to the kernel log, which carries them to every console without making PID 1
//! wait for a serial line that nobody reads.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Tells a line. Best effort: a line that cannot be told costs nothing else.
pub fn say(line: &str) {
    write("<5>", line);
}

/// Tells of something that is wrong.
pub fn warn(line: &str) {
    write("<4>", line);
}

fn write(level: &str, line: &str) {
    let line = line.replace(['\n', '\r'], " ");
    let manager = std::env::args().next().is_some_and(|name| name.ends_with("os-services"));
    let name = if manager { "os-services" } else { "os-init" };
    let told = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut log| log.write_all(format!("{level}{name}: {line}\n").as_bytes()));
    if told.is_err() {
        // Before /dev is there: stderr is the console, if there is one at all.
        let _ = writeln!(std::io::stderr(), "{name}: {line}");
    }
}
