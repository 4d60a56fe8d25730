//! Recovery: what runs when no slot starts. A root shell on the local console, nothing on the
//! network. It is as powerful as holding the disk, which whoever sits there does anyway.

use crate::console::{say, warn};
use crate::initrd::Failure;
use crate::watchdog::Petted;
use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const SHELL: &str = "/bin/busybox";
/// A shell that ends at once must not burn a core.
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps a shell on every local console; returns only when there is no shell at all.
pub fn run(watchdog: &mut Petted) -> Failure {
    say("recovery: no slot could be started; a root shell is on the local console");
    if !std::path::Path::new(SHELL).exists() {
        return Failure::Boot(format!("recovery: {SHELL} is not in this image"));
    }
    let consoles: Vec<&str> = ["ttyS0", "tty1"].into_iter().filter(|tty| usable(tty)).collect();
    if consoles.is_empty() {
        return Failure::Boot("recovery: there is no console".into());
    }
    let mut children: Vec<(&str, Option<std::process::Child>)> =
        consoles.into_iter().map(|tty| (tty, None)).collect();
    loop {
        for (tty, child) in &mut children {
            let ended = child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            if ended {
                *child = match shell_on(tty) {
                    Ok(started) => Some(started),
                    Err(error) => {
                        warn(&format!("recovery: shell on {tty}: {error}"));
                        None
                    }
                };
            }
        }
        watchdog.pet();
        sleep(PAUSE);
    }
}

fn usable(tty: &str) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let path = format!("/dev/{tty}");
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).is_ok()
}

fn shell_on(tty: &str) -> std::io::Result<std::process::Child> {
    let terminal = OpenOptions::new().read(true).write(true).open(format!("/dev/{tty}"))?;
    // busybox's own applet makes the session and takes the terminal: not as a group leader, which it
    // would have to leave by a fork, whose parent ends at once.
    Command::new(SHELL)
        .args(["setsid", "-c", SHELL, "sh", "-i"])
        .env("PATH", "/bin:/sbin")
        .env("HOME", "/")
        .env("PS1", "bascule recovery # ")
        .stdin(Stdio::from(terminal.try_clone()?))
        .stdout(Stdio::from(terminal.try_clone()?))
        .stderr(Stdio::from(terminal))
        .spawn()
}
