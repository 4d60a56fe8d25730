//! Joins standard input and output to a TCP port on 127.0.0.1.
//!
//! QEMU starts one for each connection that a machine makes to 10.0.2.100:5000. The port is read
//! from a file, so that a test can put another registry or a fault proxy behind the same
//! address, or none.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: tcp-relay PORT-FILE");
        return ExitCode::from(100);
    };
    match relay(&file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp-relay {file}: {error}");
            ExitCode::from(111)
        }
    }
}

fn relay(file: &str) -> io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let port: u16 = text.trim().parse().map_err(io::Error::other)?;
    let mut upstream = TcpStream::connect(("127.0.0.1", port))?;
    let mut writer = upstream.try_clone()?;
    thread::spawn(move || {
        // An end on either side ends the other; there is nobody to tell about it.
        let _ = pump(&mut io::stdin().lock(), &mut writer);
        let _ = writer.shutdown(Shutdown::Write);
    });
    pump(&mut upstream, &mut io::stdout().lock())
}

fn pump(source: &mut impl Read, sink: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = source.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        sink.write_all(buffer.get(..length).unwrap_or_default())?;
        sink.flush()?;
    }
}
