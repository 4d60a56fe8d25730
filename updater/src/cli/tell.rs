//! The words of `osupdate`: a line or a small table for people, one JSON object for programs.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::wire;

/// A progress line on a terminal is drawn anew at most this often.
const REDRAW: Duration = Duration::from_millis(100);

fn json<T: serde::Serialize>(value: &T) {
    // Our own messages always have a JSON form.
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A failure that kept the command from being carried out.
pub fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        let error = crate::daemon::jobs::on_wire(failure);
        json(&serde_json::json!({ "error": error }));
    }
    eprintln!("osupdate: {}", failure.message);
}

fn report_failed(report: &wire::Report) -> bool {
    let Some(error) = &report.error else { return false };
    eprintln!("osupdate: {}", error.message);
    next(&report.next);
    true
}

fn next(command: &str) {
    if !command.is_empty() {
        println!("next: {command}");
    }
}

fn named(report: &wire::Report) -> String {
    format!("release {} ({})", report.version, report.release)
}

/// The answer to `check`.
pub fn check(report: &wire::Report, as_json: bool) {
    if as_json {
        return json(report);
    }
    if report_failed(report) {
        return;
    }
    let name = named(report);
    match report.outcome.as_str() {
        "available" => println!("{name} can be installed"),
        "running" => println!("{name} runs; nothing to do"),
        "already-sealed" => println!("{name} is in slot {}, not armed", report.slot),
        "already-armed" => println!("{name} is armed; the next start tries it"),
        other => println!("{name}: {other}"),
    }
    next(&report.next);
}

/// The answer to `apply`.
pub fn apply(report: &wire::Report, as_json: bool) {
    if as_json {
        return json(report);
    }
    if report_failed(report) {
        return;
    }
    let name = named(report);
    let slot = &report.slot;
    match report.outcome.as_str() {
        "armed" => println!("{name} is in slot {slot} and armed; the next start tries it"),
        "sealed" => println!("{name} is in slot {slot}, verified, not armed"),
        "running" => println!("{name} runs; nothing to do"),
        "not-newer" => println!("{name} is not newer than what runs; nothing to do"),
        "already-armed" => println!("{name} is armed already; the next start tries it"),
        "already-sealed" => println!("{name} is in slot {slot} already, not armed"),
        other => println!("{name}: {other}"),
    }
    if report.downloaded_bytes > 0 || report.resumed_bytes > 0 {
        println!(
            "{} downloaded, {} found again, {:.1} s, signed by {}, updater peak {}",
            size(report.downloaded_bytes),
            size(report.resumed_bytes),
            report.seconds,
            report.key,
            size(report.updater_peak_rss_bytes)
        );
    }
    next(&report.next);
}

/// The answer to `status`.
pub fn status(status: &wire::MachineStatus, as_json: bool) {
    if as_json {
        return json(status);
    }
    let confirmed = if status.confirmed { "confirmed" } else { "not confirmed in this boot" };
    if let Some(running) = &status.running {
        println!("running   {}, {confirmed}", slot(running));
    }
    if let Some(other) = &status.other {
        println!("other     {}", slot(other));
    }
    match &status.trial {
        Some(trial) => println!(
            "trial     slot {}, release {}, {} tries left",
            trial.slot, trial.release, trial.tries
        ),
        None => println!("trial     none"),
    }
    for entry in &status.quarantine {
        let held = if entry.held { "held" } else { "counted" };
        println!("{held:9} {} ×{}: {}", entry.digest, entry.count, entry.reason);
    }
    let reason = &status.state_reason;
    println!("state     {}{}", status.state, with(": ", reason));
    if !status.last_outcome.is_empty() {
        println!("last      {}{}", status.last_outcome, with(": ", &status.last_reason));
    }
    if !status.record_written {
        println!("record    the loader could not write it at this start");
    }
    if status.record_damaged > 0 {
        println!(
            "record    {} of its 8 places were damaged at this start; the newest whole one counts",
            status.record_damaged
        );
    }
    if let Some(updater) = &status.updater {
        own(updater);
    }
}

fn own(updater: &wire::UpdaterStatus) {
    let paused = if updater.paused { ", paused" } else { "" };
    println!("policy    {}{paused}", updater.policy);
    println!("source    {}", if updater.source.is_empty() { "none" } else { &updater.source });
    if updater.phase != "idle" {
        println!(
            "now       {} {} of {}",
            updater.phase,
            size(updater.done_bytes),
            size(updater.total_bytes)
        );
    }
    if !updater.waiting.is_empty() {
        println!("waits     {}", updater.waiting);
    }
    if !updater.last_check.is_empty() {
        println!("looked    {}", updater.last_check);
    }
    for problem in &updater.problems {
        println!("config    {problem}");
    }
    println!("memory    updater peak {}", size(updater.peak_rss_bytes));
}

fn slot(slot: &wire::SlotStatus) -> String {
    if slot.state == "empty" {
        return format!("slot {}: empty", slot.slot);
    }
    let version =
        if slot.version.is_empty() { String::new() } else { format!(" {}", slot.version) };
    let proven = if slot.proven { ", proven" } else { "" };
    format!(
        "slot {}:{version} release {}, {}{proven}{}",
        slot.slot,
        slot.release,
        slot.state,
        with(", ", &slot.fault)
    )
}

fn with(before: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{before}{text}") }
}

/// The answer to `history`.
pub fn history(history: &wire::HistoryAnswer, as_json: bool) {
    if as_json {
        return json(history);
    }
    if history.entries.is_empty() {
        println!("nothing has happened yet");
    }
    for entry in &history.entries {
        println!(
            "{:20} {:12} {:10} {:4} {}{}",
            time(entry.at_s),
            entry.event,
            entry.version,
            with("", &entry.slot),
            entry.reason,
            if entry.fault.is_empty() { String::new() } else { format!(" [{}]", entry.fault) }
        );
    }
}

/// The answer to `rollback`.
pub fn rollback(answer: &wire::RollbackAnswer, as_json: bool) {
    if as_json {
        return json(answer);
    }
    println!("slot {} (release {}) is what starts next", answer.slot, answer.release);
    next(&answer.next);
}

/// The answer to `verify`.
pub fn verify(answer: &wire::VerifyAnswer, as_json: bool) {
    if as_json {
        return json(answer);
    }
    for slot in &answer.slots {
        let name = format!("slot {}: {} (release {})", slot.slot, slot.version, slot.release);
        match (slot.whole, slot.empty) {
            (true, _) => println!("{name} is whole, root {}", slot.root_hash),
            (false, true) => println!("slot {}: no image", slot.slot),
            (false, false) => println!("slot {}: NOT whole: {}", slot.slot, slot.reason),
        }
    }
    if let Some(error) = &answer.error {
        eprintln!("osupdate: {}", error.message);
    }
}

/// The answer to `pause` and `resume`.
pub fn paused(answer: &wire::PauseAnswer, as_json: bool) {
    if as_json {
        return json(answer);
    }
    match answer.paused {
        true => println!("paused; nothing happens by itself until `osupdate resume`"),
        false => println!("not paused; the policy holds"),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{mebibytes:.1} MiB") }
}

/// When something happened, for people.
fn time(at_s: u64) -> String {
    if at_s == 0 {
        return "clock not set".into();
    }
    crate::clock::utc(at_s)
}

/// The progress line.
pub struct Meter {
    on: bool,
    drawn: Option<Instant>,
    phase: String,
}

impl Meter {
    /// A meter that draws only where there is a terminal.
    #[must_use]
    pub fn new(on: bool) -> Meter {
        Meter { on, drawn: None, phase: String::new() }
    }

    /// Shows how far it is.
    pub fn show(&mut self, now: &wire::Progress) {
        let same = now.phase == self.phase;
        let early = self.drawn.is_some_and(|at| at.elapsed() < REDRAW);
        if !self.on || now.phase == "idle" || (same && early) {
            return;
        }
        self.phase.clone_from(&now.phase);
        self.drawn = Some(Instant::now());
        let mut line = now.phase.clone();
        if now.total_bytes > 0 && now.done_bytes > 0 {
            let percent = now.done_bytes.saturating_mul(100) / now.total_bytes;
            let filled = usize::try_from(percent / 4).unwrap_or(0).min(25);
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(25 - filled));
            line = format!("{:13} [{bar}] {percent:3} % of {}", now.phase, size(now.total_bytes));
        }
        if now.phase == "waiting" {
            line = format!("waiting: {}", now.note);
        }
        let line: String = line.chars().take(100).collect();
        // A terminal that went away loses its own line.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.on && self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
            let _ = std::io::stderr().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(time(0), "clock not set");
        assert_eq!(time(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(time(1_767_225_600), "2026-01-01T00:00:00Z");
    }
}
