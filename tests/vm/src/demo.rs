//! What `cargo xtask demo` shows, step by step.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::machine::{Machine, Options};
use crate::registry::Registry;
use crate::{artifacts, guest};

/// One line of the closing table.
struct Step {
    name: &'static str,
    seconds: f64,
    ok: bool,
    note: String,
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    steps: Vec<Step>,
    kernel_to_healthy_s: Option<f64>,
    idle_memory_bytes: Option<u64>,
    download_bytes: Option<u64>,
    updater_peak_rss_bytes: Option<u64>,
    updater_cgroup_peak_bytes: Option<u64>,
}

/// Runs the demo. With `keep`, the machine and its registry go on when it has ended.
///
/// # Errors
/// A step failed; the table has been printed and demo.json written all the same.
pub fn run(keep: bool) -> Result<()> {
    let mut seen = Seen::default();
    let registry = if keep { Registry::start_untied("demo") } else { Registry::start("demo") }?;
    let v1 = artifacts::release("v1")?;
    let options = Options { cpus: 2, tied: !keep, ..Options::new("demo", &v1.disk()) };
    let mut machine = Machine::prepare(options)?;
    machine.route_registry(Some(registry.port()))?;
    let result = show(&mut machine, &registry, &mut seen);
    if result.is_err() {
        eprintln!("serial line ends with:\n{}", machine.serial_tail());
    }
    report(&seen)?;
    result?;
    if keep {
        println!("\nThe machine stays up. Log in with\n  {}", machine.ssh()?.line());
        let processes = [machine.let_go(), Some(registry.let_go())];
        let processes = processes.into_iter().flatten().map(|it| it.to_string());
        println!(
            "End it, and its registry, with\n  kill {}",
            processes.collect::<Vec<_>>().join(" ")
        );
    }
    Ok(())
}

fn show(machine: &mut Machine, registry: &Registry, seen: &mut Seen) -> Result<()> {
    seen.step("boot release 1", || {
        machine.power_on()?;
        let (release, slot) = guest::wait_confirmed(machine, guest::BOOT)?;
        ensure!(release == 1, "release {release} runs instead of 1");
        Ok(format!("confirmed in slot {slot}"))
    })?;
    seen.kernel_to_healthy_s = guest::kernel_to_confirmed_s(&machine.serial());
    seen.idle_memory_bytes = guest::memory_in_use_bytes(machine).ok();

    seen.step("publish release 2", || {
        registry.publish(&artifacts::release("v2")?)?;
        Ok(format!("signed, in a registry on port {}", registry.port()))
    })?;
    let applied = apply(machine, seen, "osupdate apply")?;
    seen.download_bytes = applied.get("downloaded_bytes").and_then(Value::as_u64);
    reboot(machine, seen, "reboot into release 2, health gate", 2)?;
    seen.peak(machine);
    seen.step("osupdate rollback", || {
        let (code, answer) = guest::osupdate(machine, "rollback", guest::APPLY)?;
        ensure!(code == 0, "ended with {code}: {answer}");
        Ok("release 1 armed".to_owned())
    })?;
    reboot(machine, seen, "reboot into release 1, health gate", 1)?;

    seen.step("publish a release that never gets healthy", || {
        registry.publish(&artifacts::release("unhealthy")?)?;
        Ok("signed all the same".to_owned())
    })?;
    apply(machine, seen, "osupdate apply, the bad release")?;
    seen.step("reboot, gate fails, back by itself", || {
        let boot = guest::boot_id(machine)?;
        guest::reboot(machine)?;
        guest::wait_back(machine, &boot, 1, guest::FALL_BACK)?;
        Ok("release 1 runs, nobody touched it".to_owned())
    })?;
    seen.step("the bad release is held", || {
        let (code, answer) = guest::osupdate(machine, "apply", guest::APPLY)?;
        ensure!(code == 2, "`osupdate apply` ended with {code}: {answer}");
        Ok("`osupdate apply` refuses it".to_owned())
    })
}

fn apply(machine: &mut Machine, seen: &mut Seen, name: &'static str) -> Result<Value> {
    let mut result = Value::Null;
    seen.step(name, || {
        let (code, answer) = guest::osupdate(machine, "apply", guest::APPLY)?;
        ensure!(code == 0, "ended with {code}: {answer}");
        let bytes = answer.get("downloaded_bytes").and_then(Value::as_u64).unwrap_or(0);
        result = answer;
        Ok(format!("{} MB downloaded, written, read back, armed", bytes / 1_000_000))
    })?;
    seen.peak(machine);
    Ok(result)
}

fn reboot(machine: &mut Machine, seen: &mut Seen, name: &'static str, to: u64) -> Result<()> {
    seen.step(name, || {
        let (release, slot) = guest::reboot_confirmed(machine)?;
        ensure!(release == to, "release {release} runs instead of {to}");
        Ok(format!("confirmed in slot {slot}"))
    })
}

impl Seen {
    fn step(&mut self, name: &'static str, act: impl FnOnce() -> Result<String>) -> Result<()> {
        println!("  {name} …");
        let begun = Instant::now();
        let result = act();
        let seconds = begun.elapsed().as_secs_f64();
        let (ok, note) = match &result {
            Ok(note) => (true, note.clone()),
            Err(error) => (false, format!("{error:#}").lines().next().unwrap_or("").to_owned()),
        };
        println!("  {name}: {note} ({seconds:.1} s)");
        self.steps.push(Step { name, seconds, ok, note });
        result.map(drop).with_context(|| name)
    }

    fn peak(&mut self, machine: &Machine) {
        let Ok((_, status)) = guest::osupdate(machine, "status", Duration::from_secs(30)) else {
            return;
        };
        let read = |name: &str| status.pointer(&format!("/updater/{name}")).and_then(Value::as_u64);
        self.updater_peak_rss_bytes = self.updater_peak_rss_bytes.max(read("peak_rss_bytes"));
        self.updater_cgroup_peak_bytes =
            self.updater_cgroup_peak_bytes.max(read("cgroup_peak_bytes"));
    }
}

fn report(seen: &Seen) -> Result<()> {
    let slot_bytes = artifacts::release("v2")
        .ok()
        .and_then(|release| fs::metadata(release.slot()).ok())
        .map(|meta| meta.len());
    println!("\n  {:<44} {:>8}  what happened", "step", "seconds");
    for step in &seen.steps {
        let mark = if step.ok { "" } else { "FAILED: " };
        println!("  {:<44} {:>8.1}  {mark}{}", step.name, step.seconds, step.note);
    }
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "unknown".to_owned(), |it| format!("{:.1} MiB", it as f64 / 1048576.0))
    };
    let kernel = seen.kernel_to_healthy_s;
    println!();
    for (what, value) in [
        ("slot image", mib(slot_bytes)),
        ("downloaded for the update", mib(seen.download_bytes)),
        ("peak memory of the updater (RSS)", mib(seen.updater_peak_rss_bytes)),
        ("the same with its page cache (cgroup)", mib(seen.updater_cgroup_peak_bytes)),
        ("memory in use when idle", mib(seen.idle_memory_bytes)),
        (
            "kernel start to confirmed healthy",
            kernel.map_or_else(|| "unknown".to_owned(), |it| format!("{it:.1} s")),
        ),
    ] {
        println!("  {what:<44} {value:>12}");
    }
    let steps: Vec<Value> = seen
        .steps
        .iter()
        .map(|step| {
            json!({"name": step.name, "seconds": step.seconds, "ok": step.ok, "note": step.note})
        })
        .collect();
    let value = json!({
        "slot_bytes": slot_bytes,
        "download_bytes": seen.download_bytes,
        "updater_peak_rss_bytes": seen.updater_peak_rss_bytes,
        "updater_cgroup_peak_bytes": seen.updater_cgroup_peak_bytes,
        "kernel_to_healthy_s": kernel,
        "idle_memory_bytes": seen.idle_memory_bytes,
        "steps": steps,
    });
    let path = artifacts::target_dir().join("demo.json");
    let text = serde_json::to_string_pretty(&value).context("encode demo.json")?;
    fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    println!("\n  the same as JSON: {}", path.display());
    if seen.steps.is_empty() {
        bail!("nothing was shown");
    }
    Ok(())
}
