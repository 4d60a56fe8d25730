//! The command line of `osctl`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Shows how this machine stands, and looks after its services.
///
/// Exit codes: 0 done, 1 nothing to do, 2 refused, 3 not known now, 4 corrupt, 100 usage, 111 system
/// failure.
#[derive(Debug, Parser)]
#[command(name = "osctl", version, max_term_width = 100)]
pub struct Arguments {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show on one screen how the machine stands, and what needs attention
    Status,
    /// Look after the services
    #[command(subcommand)]
    Service(Service),
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

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// List all services, with what each may do
    List,
    /// Show how one service stands
    Status {
        /// The service
        name: String,
    },
    /// Start a service now and at every boot
    Enable {
        /// Its name, or a service file to take: one that ends in .toml
        service: String,
    },
    /// Stop a service, and do not start it at the next boots
    Disable {
        /// The service
        name: String,
    },
    /// Start a service that is down
    Start {
        /// The service
        name: String,
    },
    /// Stop a service until it is started, or the machine is
    Stop {
        /// The service
        name: String,
    },
    /// Stop a service and start it, by its newest file
    Restart {
        /// The service
        name: String,
    },
    /// Show what a service wrote
    Logs {
        /// The service
        name: String,
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
        /// Only so many of the last lines; 0 is all that is kept
        #[arg(short = 'n', long, default_value_t = 0)]
        lines: u32,
    },
    /// Show the file of a service, and what containerd is told
    Inspect {
        /// The service
        name: String,
    },
    /// Check service files, alone and beside all others; changes nothing
    Validate {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Pull the image of a service from its registry; starts nothing
    Pull {
        /// The service, or an image: registry/repository@sha256:…
        service: String,
    },
    /// Run a service by another image; put back by itself if it does not get healthy
    Upgrade {
        /// The service
        name: String,
        /// The image: registry/repository@sha256:…
        image: String,
    },
    /// Run a service by what it ran by before its last upgrade; gives up an image that is set aside
    Rollback {
        /// The service
        name: String,
    },
    /// Make service files of a compose file; starts nothing
    Import {
        /// The compose file, or a cloud-config of RancherOS
        file: PathBuf,
        /// Where the service files are put
        folder: PathBuf,
        /// Ask no registry for the digests of tags
        #[arg(long)]
        offline: bool,
    },
    /// Stop a service and remove its file
    Rm {
        /// The service
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
