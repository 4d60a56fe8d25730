//! QEMU's machine protocol: one JSON object a line over a unix socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait;

const CONNECT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(60);

/// A connection in command mode.
pub struct Qmp {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket at `path`, which QEMU may still be making.
    ///
    /// # Errors
    /// QEMU does not open it, or does not speak QMP.
    pub fn connect(path: &Path) -> Result<Self> {
        let writer =
            wait::until("QEMU's QMP socket", CONNECT, || Ok(UnixStream::connect(path).ok()))?;
        writer.set_read_timeout(Some(ANSWER)).context("set QMP timeout")?;
        let reader = BufReader::new(writer.try_clone().context("clone QMP socket")?);
        let mut qmp = Self { writer, reader };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU's greeting is not QMP: {greeting}");
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and gives its return value. Events in between are dropped.
    ///
    /// # Errors
    /// QEMU refuses the command or is gone.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        self.writer
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("send QMP {command}"))?;
        loop {
            let mut answer = self.read().with_context(|| format!("QMP {command}"))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {error}");
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("read from QEMU")? == 0 {
            bail!("QEMU closed its QMP socket");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU's answer is not JSON: {line}"))
    }
}
