//! The command line of `osupdate`.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Updates this machine's OS: looks, installs, goes back.
///
/// Exit codes: 0 done, 1 nothing to do, 2 refused, 3 cannot know, 4 corrupt, 100 usage, 111 system
/// failure.
#[derive(Debug, Parser)]
#[command(name = "osupdate", version, max_term_width = 100)]
pub struct Arguments {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// The updater's socket.
    #[arg(long, global = true, hide = true, default_value = crate::site::SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look whether the source has another release; changes nothing
    Check,
    /// Install the source's release into the other slot and arm it for the next start
    Apply {
        /// Try a release again that is in quarantine
        #[arg(long)]
        force: bool,
        /// Install a release with a lower number than the running one
        #[arg(long)]
        allow_older: bool,
        /// Only write and verify; do not arm
        #[arg(long)]
        stage: bool,
        /// Reboot into it at once
        #[arg(long, conflicts_with = "stage")]
        reboot: bool,
        /// Another source than the configured one: registry/repository:tag or @sha256:DIGEST
        #[arg(long, value_name = "REFERENCE")]
        source: Option<String>,
    },
    /// Show what runs, what is in the other slot, what is held back
    Status,
    /// Show what happened to this machine's releases
    History {
        /// At most so many of the newest entries; 0 is all
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
    /// Go back to the other slot, or take an armed release back
    Rollback {
        /// Reboot at once
        #[arg(long)]
        reboot: bool,
    },
    /// Read the slots and compare them with what they promise
    Verify {
        /// Only this one
        #[arg(long)]
        slot: Option<SlotWord>,
    },
    /// Stop the updater from acting by itself, also across reboots
    Pause {
        /// Why, for the history
        reason: Option<String>,
    },
    /// Let the updater act by itself again
    Resume,
    /// Try the source's release again although it is in quarantine
    Retry {
        /// Reboot into it at once
        #[arg(long)]
        reboot: bool,
    },
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

/// A slot on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SlotWord {
    /// Slot A.
    A,
    /// Slot B.
    B,
}

impl SlotWord {
    /// `a` or `b`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            SlotWord::A => "a",
            SlotWord::B => "b",
        }
    }
}

/// The command line's description, for completions and man pages.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
