//! Kills at random moments: one machine that takes an update, boots it, leaves it by a rollback and
//! takes it again, for ever, and whose power goes in the middle of each operation.
//!
//! And new machines, whose power goes just after their first boot has let somebody in.
//!
//! The rest of the proof knows where writes and flushes are; this part knows nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use strict_disk::random::Random;

use crate::machine::{Machine, Options};
use crate::registry::Registry;
use crate::template::Template;
use crate::{artifacts, guest, wait};

/// An operation is cut at a moment of its first so many milliseconds: an apply, or a shutdown and a
/// boot up to its health gate, takes that long under emulation.
const SPAN_MS: u64 = 45_000;
/// A boot is worth waiting for, however busy the host is.
const PATIENCE: u32 = 2;
/// A first boot is cut at a moment of so many milliseconds after its sshd first answers.
const YOUNG_MS: u64 = 10_000;
/// Who a machine is: its host key, whether the private half fits, and its machine-id.
const IDENTITY: &str = "cd /var/lib/bascule/ssh && cat ssh_host_ed25519_key.pub && \
    ssh-keygen -y -P '' -f ssh_host_ed25519_key && cat /etc/machine-id";
/// What so many power cuts may leave behind on the state partition, in KiB: journals and logs that
/// grow, and temporary files that nobody removes, show here.
const LEFT_KIB: u64 = 8 << 10;
/// What power cuts may leave in the quarantine: what the operator put there.
const LEFT_BY_HAND: &str = "rollback";

/// Cuts the power of the machine `name` so many `times`, at moments that `seed` repeats.
///
/// # Errors
/// After a cut the machine does not get confirmed, power cuts alone have had a release held, or they
/// fill the state partition (ST-5).
pub fn run(name: &str, times: u32, seed: u64) -> Result<()> {
    if times == 0 {
        return Ok(());
    }
    let registry = Registry::start(name)?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = Template::armed()?.start(name)?;
    machine.route_registry(Some(registry.port()))?;
    let mut random = Random::new(seed);
    let mut release = 1;
    let mut used = None;
    for number in 0..times {
        let operation = operation(release, &mut random);
        let moment = Duration::from_millis(random.below(SPAN_MS));
        let what = format!(
            "kill {number} of seed {seed}: release {release} runs, `{operation}`, power cut after \
             {} ms",
            moment.as_millis()
        );
        println!("  {what}");
        cut(&mut machine, operation, moment).with_context(|| what.clone())?;
        release = boots(&mut machine).with_context(|| what)?;
        let now = used_kib(&machine)?;
        let first = *used.get_or_insert(now);
        ensure!(
            now <= first + LEFT_KIB,
            "{number} power cuts after the first: {now} KiB of state are used, were {first}"
        );
    }
    Ok(())
}

/// What the state partition holds.
fn used_kib(machine: &Machine) -> Result<u64> {
    let text = machine.ssh()?.run("df -k --output=used /var | tail -n 1")?.ok("df")?;
    text.trim().parse().with_context(|| format!("df says {text:?}"))
}

/// Boots so many `times` a machine that is new, and cuts its power soon after its first login.
///
/// # Errors
/// After a cut nobody can log in, or the machine is somebody else.
pub fn first_boots(name: &str, times: u32, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    for number in 0..times {
        let moment = Duration::from_millis(random.below(YOUNG_MS));
        let what = format!(
            "first boot {number} of seed {seed}, power cut {} ms after its sshd answers",
            moment.as_millis()
        );
        println!("  {what}");
        first_boot(name, moment).with_context(|| what)?;
    }
    Ok(())
}

fn first_boot(name: &str, moment: Duration) -> Result<()> {
    let mut machine = Machine::start(Options::new(name, &artifacts::release("v1")?.disk()))?;
    guest::wait_ssh(&mut machine, guest::SSH * PATIENCE)?;
    let before = identity(&machine)?;
    wait::moment(moment);
    machine.power_cut()?;
    machine.mark_serial();
    machine.power_on()?;
    guest::wait_ssh(&mut machine, guest::SSH * PATIENCE)?;
    let after = identity(&machine)?;
    ensure!(before == after, "it was {before:?} and is {after:?}");
    Ok(())
}

/// The host key and the machine-id.
fn identity(machine: &Machine) -> Result<(String, String)> {
    let text = machine.ssh()?.run(IDENTITY)?.ok("who the machine is")?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let [told, kept, id] = lines.as_slice() else { bail!("three lines, not {text:?}") };
    ensure!(told == kept, "the halves of its host key do not fit: {text}");
    let valid = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(valid, "{id:?} is no machine-id");
    Ok(((*told).to_owned(), (*id).to_owned()))
}

fn operation(release: u64, random: &mut Random) -> &'static str {
    match (release, random.chance(500)) {
        (_, true) => "reboot",
        (1, false) => "osupdate apply --force",
        (_, false) => "osupdate rollback; reboot",
    }
}

fn cut(machine: &mut Machine, operation: &str, moment: Duration) -> Result<()> {
    let mut client = machine.ssh()?.spawn(operation, guest::APPLY)?;
    wait::moment(moment);
    machine.power_cut()?;
    // It may have ended before.
    client.kill().context("end the ssh client")?;
    client.wait().context("wait for the ssh client")?;
    machine.mark_serial();
    machine.power_on()
}

/// Waits until the machine is confirmed; the release that runs.
fn boots(machine: &mut Machine) -> Result<u64> {
    let (release, slot) = guest::wait_confirmed(machine, guest::BOOT * PATIENCE)?;
    let fits = matches!((release, slot.as_str()), (1, "a") | (2, "b"));
    ensure!(fits, "release {release} runs in slot {slot}");
    let (_, status) = guest::osupdate(machine, "status", guest::SSH)?;
    let held = status.get("quarantine").and_then(Value::as_array).into_iter().flatten();
    for entry in held {
        let reason = entry.get("reason").and_then(Value::as_str).unwrap_or_default();
        ensure!(reason.contains(LEFT_BY_HAND), "held by power cuts alone: {entry}");
    }
    Ok(release)
}
