//! A time server that tells the time it is told to (RFC 5905, the server's side of one packet).

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Seconds from NTP's epoch (1900) to that of Unix.
const EPOCH_S: u64 = 2_208_988_800;
const PACKET_SIZE: usize = 48;
/// No leap second, version 4, mode 4 (server).
const SERVER: u8 = 0x24;
/// `server`'s precision: 2^-20 s.
const PRECISION: u8 = 0xec;

/// A running time server on 127.0.0.1; machines reach it as 10.0.2.2.
pub struct TimeServer {
    port: u16,
    offset_s: Arc<AtomicI64>,
    answers: Arc<AtomicU64>,
}

impl TimeServer {
    /// Starts one that tells this machine's own time. It ends with the program.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("bind the time server")?;
        let port = socket.local_addr().context("ask for the time server's port")?.port();
        let server = Self { port, offset_s: Arc::default(), answers: Arc::default() };
        let (offset_s, answers) = (Arc::clone(&server.offset_s), Arc::clone(&server.answers));
        thread::spawn(move || {
            let mut packet = [0; PACKET_SIZE];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                if length == PACKET_SIZE {
                    // Before the answer: who has it may ask for the number at once.
                    answers.fetch_add(1, Ordering::Relaxed);
                    answer(&socket, from, &packet, offset_s.load(Ordering::Relaxed));
                }
            }
        });
        Ok(server)
    }

    /// From now on it is `seconds` ahead of this machine's time, or behind.
    pub fn be_ahead(&self, seconds: i64) {
        self.offset_s.store(seconds, Ordering::Relaxed);
    }

    /// How often it has been asked.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Its name for `time.servers` of a machine's configuration.
    pub fn name(&self) -> String {
        format!("10.0.2.2:{}", self.port)
    }
}

fn answer(socket: &UdpSocket, to: SocketAddr, question: &[u8; PACKET_SIZE], offset_s: i64) {
    let now = stamp(offset_s);
    let mut packet = [0; PACKET_SIZE];
    packet[..4].copy_from_slice(&[SERVER, 1, question[2], PRECISION]);
    packet[12..16].copy_from_slice(b"TEST");
    packet[16..24].copy_from_slice(&now);
    packet[24..32].copy_from_slice(&question[40..48]);
    packet[32..40].copy_from_slice(&now);
    packet[40..48].copy_from_slice(&now);
    // Like any packet, it may be lost; the client asks again.
    let _ = socket.send_to(&packet, to);
}

/// The time as NTP writes it: seconds modulo 2^32, and 32 bits of fraction.
fn stamp(offset_s: i64) -> [u8; 8] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().saturating_add_signed(offset_s).wrapping_add(EPOCH_S);
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    ((seconds << 32) | fraction).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_tells_the_time_that_it_is_told_to() {
        let server = TimeServer::start().unwrap();
        server.be_ahead(86_400);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut question = [0; PACKET_SIZE];
        question[40..48].copy_from_slice(b"question");
        client.send_to(&question, ("127.0.0.1", server.port)).unwrap();
        let mut told = [0; PACKET_SIZE];
        client.recv(&mut told).unwrap();
        assert_eq!(&told[24..32], b"question");
        let seconds = u32::from_be_bytes(told[40..44].try_into().unwrap());
        let now = u32::from_be_bytes(stamp(0)[..4].try_into().unwrap());
        assert!(seconds.abs_diff(now.wrapping_add(86_400)) < 60, "{seconds} {now}");
        assert_eq!(server.answers(), 1);
    }
}
