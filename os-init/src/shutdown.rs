//! The last steps: end what runs, let go of state, and leave. Bounded: a container that ignores TERM
//! delays a reboot, it never prevents one.

use crate::console::warn;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Start again.
    Reboot,
    /// Switch off.
    Poweroff,
}

/// How long what still runs has between TERM and KILL: the services have had their own time before,
/// and containers' shims ignore TERM.
const TERM_MAX: Duration = Duration::from_secs(2);
const KILL_MAX: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(50);

/// Ends every process, unmounts state and leaves. Does not return.
pub fn leave(how: How, pet: &mut dyn FnMut()) -> ! {
    for (signal, limit) in [(Signal::SIGTERM, TERM_MAX), (Signal::SIGKILL, KILL_MAX)] {
        // -1: every process but this one. None left is fine.
        let _ = kill(Pid::from_raw(-1), signal);
        reap_all(limit, pet);
    }
    nix::unistd::sync();
    if let Err(error) = umount2(crate::state::MOUNT, MntFlags::empty()) {
        warn(&format!("unmount state: {error}; making it read-only"));
        let none: Option<&str> = None;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        // What fails here is left to the journal.
        let _ = mount(none, crate::state::MOUNT, none, flags, none);
    }
    nix::unistd::sync();
    pet();
    let mode = match how {
        How::Reboot => RebootMode::RB_AUTOBOOT,
        How::Poweroff => RebootMode::RB_POWER_OFF,
    };
    let refused = reboot(mode);
    // The watchdog ends what the kernel refuses.
    loop {
        warn(&format!("leave: {refused:?}"));
        sleep(Duration::from_secs(60));
    }
}

fn reap_all(limit: Duration, pet: &mut dyn FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        pet();
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => sleep(STEP),
            Ok(_) => {}
            // No child is left; containers' shims are children too, by way of the reaper.
            Err(_) => return,
        }
    }
}
