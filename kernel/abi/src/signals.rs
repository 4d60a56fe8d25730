//! The signal mask of programs that are started.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Starts the program with no signal blocked. A program inherits the mask of who starts it; one that
/// gets its own signals from a descriptor blocks them, and its children would never be told to end.
pub fn unblocked(command: &mut Command) -> &mut Command {
    let clear = || {
        let none = nix::sys::signal::SigSet::empty();
        none.thread_set_mask().map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes one system call, which is
    // async-signal-safe, on a set on its own stack; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(clear) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SigSet, Signal};

    #[test]
    fn a_blocked_signal_is_not_blocked_in_the_child() {
        let blocked = |command: &mut Command| {
            let text = command.arg("SigBlk").arg("/proc/self/status").output().unwrap().stdout;
            let text = String::from_utf8(text).unwrap();
            u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        SigSet::from_iter([Signal::SIGTERM]).thread_block().unwrap();
        assert_ne!(blocked(&mut Command::new("grep")), 0, "inherited");
        assert_eq!(blocked(unblocked(&mut Command::new("grep"))), 0);
    }
}
