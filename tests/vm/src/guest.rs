//! What a running Bascule says about itself, and how long it may take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::machine::Machine;
use crate::ssh::Done;
use crate::wait;

/// Power on to a confirmed boot under emulation, beside a second machine: firmware 10 s, kernel
/// and services 40 s, health gate 30 s, and room.
pub const BOOT: Duration = Duration::from_secs(300);
/// Power on to an answering sshd.
pub const SSH: Duration = Duration::from_secs(240);
/// Reboot into a bad release, its failure (at worst three times the watchdog), and back.
pub const FALL_BACK: Duration = Duration::from_secs(900);
/// Download, write and read back of one image.
pub const APPLY: Duration = Duration::from_secs(400);

/// What PID 1 says on the console when the boot is confirmed.
pub const CONFIRMED: &str = "boot confirmed";
/// What the services manager says there when sshd is about to listen.
pub(crate) const CONSOLE: &str = "os-services: console started";
/// Between two questions while the serial line says nothing new: each costs an emulated machine
/// seconds of work, which the boot that is waited for would miss.
const QUIET: Duration = Duration::from_secs(15);
/// Between two questions once the sign was given, and how many of them.
const EAGER: Duration = Duration::from_secs(1);
const EAGER_MAX: u32 = 10;

/// Asks the machine at once, whenever the serial line has given `sign` once more, and now and then
/// in between, until there is an answer.
fn ask_at_sign<T>(
    machine: &mut Machine,
    (what, sign, limit): (&str, &str, Duration),
    ask: impl Fn(&Machine) -> Result<Option<T>>,
) -> Result<T> {
    let (mut signs, mut eager) = (machine.serial().matches(sign).count(), 0);
    let mut due = Instant::now();
    let answer = wait::until(what, limit, || {
        machine.check_running()?;
        let seen = machine.serial().matches(sign).count();
        if seen > signs {
            (signs, eager, due) = (seen, EAGER_MAX, Instant::now());
        }
        if Instant::now() < due {
            return Ok(None);
        }
        let answer = ask(machine)?;
        due = Instant::now() + if eager > 0 { EAGER } else { QUIET };
        eager = eager.saturating_sub(1);
        Ok(answer)
    });
    answer.with_context(|| format!("serial line ends with:\n{}", machine.serial_tail()))
}

/// Waits until the machine answers over ssh.
///
/// # Errors
/// It does not within `limit`.
pub fn wait_ssh(machine: &mut Machine, limit: Duration) -> Result<()> {
    ask_at_sign(machine, ("the machine's sshd", CONSOLE, limit), |machine| {
        let done = machine.ssh()?.run_within("true", Duration::from_secs(30))?;
        Ok((done.code == 0).then_some(()))
    })
}

/// What PID 1 wrote about this boot.
///
/// # Errors
/// The machine does not answer, or the file is not there.
pub fn boot_facts(machine: &Machine) -> Result<Value> {
    let text = machine.ssh()?.run("cat /run/bascule/boot.json")?.ok("boot.json")?;
    serde_json::from_str(&text).with_context(|| format!("boot.json is not JSON: {text}"))
}

/// Release number and slot that run.
///
/// # Errors
/// As [`boot_facts`].
pub fn running(machine: &Machine) -> Result<(u64, String)> {
    let facts = boot_facts(machine)?;
    let release = facts.get("release").and_then(Value::as_u64);
    let slot = facts.get("slot").and_then(Value::as_str);
    match (release, slot) {
        (Some(release), Some(slot)) => Ok((release, slot.to_owned())),
        _ => bail!("boot.json has no release or slot: {facts}"),
    }
}

/// `osupdate WORDS --json`, parsed, with the exit code.
///
/// # Errors
/// The machine does not answer, or the answer is not JSON.
pub fn osupdate(machine: &Machine, words: &str, limit: Duration) -> Result<(i32, Value)> {
    let done = osupdate_raw(machine, words, limit)?;
    let text = done.stdout.trim();
    // Progress comes as a line each; the last line is the result.
    let last = text.lines().last().unwrap_or_default();
    let value = serde_json::from_str(text).or_else(|_| serde_json::from_str(last));
    let value = value.with_context(|| {
        format!("`osupdate {words}` ended with {}: {} {}", done.code, text, done.stderr.trim())
    })?;
    Ok((done.code, value))
}

/// `osupdate WORDS --json`, as it came.
///
/// # Errors
/// The ssh client cannot be started.
pub fn osupdate_raw(machine: &Machine, words: &str, limit: Duration) -> Result<Done> {
    machine.ssh()?.run_within(&format!("osupdate {words} --json"), limit)
}

/// `osctl WORDS --json`, parsed, with the exit code.
///
/// # Errors
/// The machine does not answer, or the answer is not JSON.
pub fn osctl(machine: &Machine, words: &str) -> Result<(i32, Value)> {
    osctl_within(machine, words, SSH)
}

/// The same, where it may take until `limit`.
///
/// # Errors
/// As [`osctl`].
pub fn osctl_within(machine: &Machine, words: &str, limit: Duration) -> Result<(i32, Value)> {
    let done = machine.ssh()?.run_within(&format!("osctl {words} --json"), limit)?;
    let value = serde_json::from_str(&done.stdout);
    let value = value.with_context(|| {
        let (code, out, err) = (done.code, done.stdout.trim(), done.stderr.trim());
        format!("`osctl {words}` ended with {code}: {out} {err}")
    })?;
    Ok((done.code, value))
}

/// Waits until the running boot is confirmed, and gives release and slot.
///
/// # Errors
/// It is not within `limit`.
pub fn wait_confirmed(machine: &mut Machine, limit: Duration) -> Result<(u64, String)> {
    ask_at_sign(machine, ("the boot to be confirmed", CONFIRMED, limit), |machine| {
        let status = osupdate(machine, "status", Duration::from_secs(30));
        let confirmed = status.is_ok_and(|(_, status)| {
            status.get("confirmed").and_then(Value::as_bool) == Some(true)
        });
        Ok(if confirmed { running(machine).ok() } else { None })
    })
}

/// Waits until another boot than `boot_id` answers over ssh.
///
/// # Errors
/// None does within `limit`.
pub fn wait_rebooted(machine: &mut Machine, boot_id: &str, limit: Duration) -> Result<()> {
    let what = "the machine to come back after its reboot";
    ask_at_sign(machine, (what, CONSOLE, limit), |machine| {
        let facts = boot_facts(machine).ok();
        let now = facts.as_ref().and_then(|facts| facts.get("boot_id")?.as_str());
        Ok(now.filter(|now| *now != boot_id).map(drop))
    })
}

/// The present boot's id.
///
/// # Errors
/// As [`boot_facts`].
pub fn boot_id(machine: &Machine) -> Result<String> {
    let facts = boot_facts(machine)?;
    let id = facts.get("boot_id").and_then(Value::as_str).context("boot.json without boot_id")?;
    Ok(id.to_owned())
}

/// Reboots the machine politely; does not wait for it.
///
/// # Errors
/// The machine does not answer.
pub fn reboot(machine: &Machine) -> Result<()> {
    // The connection may break before the answer: that it went down is seen by its boot id.
    machine.ssh()?.run("reboot").map(drop)
}

/// Reboots the machine politely and waits for the next boot to be confirmed: release and slot.
///
/// # Errors
/// It is not within two times [`BOOT`].
pub fn reboot_confirmed(machine: &mut Machine) -> Result<(u64, String)> {
    let boot = boot_id(machine)?;
    reboot(machine)?;
    wait_rebooted(machine, &boot, BOOT)?;
    wait_confirmed(machine, BOOT)
}

/// Waits until a boot other than `boot_id` runs release `release`, confirmed or default.
///
/// # Errors
/// It does not within `limit`.
pub fn wait_back(
    machine: &mut Machine,
    boot_id: &str,
    release: u64,
    limit: Duration,
) -> Result<()> {
    let what = format!("release {release} to run again");
    ask_at_sign(machine, (&what, CONSOLE, limit), |machine| {
        let Ok(facts) = boot_facts(machine) else {
            return Ok(None);
        };
        let is_new = facts.get("boot_id").and_then(Value::as_str) != Some(boot_id);
        let runs = facts.get("release").and_then(Value::as_u64) == Some(release);
        Ok((is_new && runs).then_some(()))
    })
}

/// `-rtc` of a machine whose clock has no battery. (The firmware takes 1970 for 2070.)
pub const CLOCK_UNSET: &str = "base=2000-01-01";
/// The beginning of 2026: no clock that was set is before it.
pub const CLOCK_SET_S: i64 = 1_767_225_600;

/// The machine's clock, in seconds since 1970.
///
/// # Errors
/// The machine does not answer.
pub fn clock(machine: &Machine) -> Result<i64> {
    let text = machine.ssh()?.run("date +%s")?.ok("date")?;
    text.trim().parse().with_context(|| format!("date says {text}"))
}

/// Memory in use: total less available.
///
/// # Errors
/// The machine does not answer.
pub fn memory_in_use_bytes(machine: &Machine) -> Result<u64> {
    let text = machine.ssh()?.run("cat /proc/meminfo")?.ok("cat /proc/meminfo")?;
    let kib = |name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok()
        })
    };
    let (total, available): (Option<u64>, Option<u64>) = (kib("MemTotal:"), kib("MemAvailable:"));
    match (total, available) {
        (Some(total), Some(available)) => Ok(total.saturating_sub(available) * 1024),
        _ => bail!("/proc/meminfo has no total or available: {text}"),
    }
}

/// Seconds of kernel time at which the boot was confirmed, from the stamp of the line that PID 1
/// puts on the console: the last such line.
pub fn kernel_to_confirmed_s(serial: &str) -> Option<f64> {
    let line = serial.lines().rev().find(|line| line.contains(CONFIRMED))?;
    let (_, rest) = line.split_once('[')?;
    let (stamp, _) = rest.split_once(']')?;
    stamp.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_of_the_confirming_line_is_read() {
        let serial = "[    1.5] x\r\n[   41.250000] os-init: boot confirmed: slot a\r\n";
        assert_eq!(kernel_to_confirmed_s(serial), Some(41.25));
        assert_eq!(kernel_to_confirmed_s("nothing"), None);
    }
}
