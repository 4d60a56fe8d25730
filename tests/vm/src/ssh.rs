//! Commands inside a machine, through the stock ssh client and the test key.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How to log in to one machine.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// Port on 127.0.0.1 that leads to the machine's port 22.
    pub port: u16,
    /// Private key.
    pub key: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// Exit code; 255 when ssh itself failed, 124 when the time was up.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Done {
    /// The standard output.
    ///
    /// # Errors
    /// The command did not end with 0.
    pub fn ok(self, what: &str) -> Result<String> {
        if self.code != 0 {
            bail!("`{what}` ended with {}: {} {}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

impl Ssh {
    /// The command line that a person can use.
    pub fn line(&self) -> String {
        format!(
            "ssh -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             root@127.0.0.1",
            self.key.display(),
            self.port
        )
    }

    /// Runs `command` in the machine, for at most `limit`.
    ///
    /// # Errors
    /// The ssh client cannot be started. A command that fails is no error here.
    pub fn run_within(&self, command: &str, limit: Duration) -> Result<Done> {
        let output = self
            .client(limit)
            .arg(command)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start ssh for `{command}`"))?;
        Ok(Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that takes no more than a minute.
    ///
    /// # Errors
    /// As [`Ssh::run_within`].
    pub fn run(&self, command: &str) -> Result<Done> {
        self.run_within(command, Duration::from_secs(60))
    }

    /// Starts `command` without waiting for it; the caller may kill the client.
    ///
    /// # Errors
    /// The ssh client cannot be started.
    pub fn spawn(&self, command: &str, limit: Duration) -> Result<std::process::Child> {
        self.client(limit)
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start ssh for `{command}`"))
    }

    fn client(&self, limit: Duration) -> Command {
        let mut client = Command::new("timeout");
        client.arg(limit.as_secs().to_string()).arg("ssh").arg("-i").arg(&self.key);
        client.args(["-p", &self.port.to_string(), "-F", "/dev/null"]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=60",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
        ] {
            client.args(["-o", option]);
        }
        client.arg("root@127.0.0.1");
        client
    }
}
