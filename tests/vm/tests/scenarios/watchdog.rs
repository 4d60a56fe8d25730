//! What hangs is noticed, and what is well is left alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vm_tests::disk::{self, Extent};
use vm_tests::machine::Machine;
use vm_tests::template::Template;
use vm_tests::{guest, wait};

/// The manager's silence is noticed after a minute, and a busy host takes its time.
const NOTICED: Duration = Duration::from_secs(180);
/// Services have 30 s to end, what is left 5; then a busy host.
const DOWN: Duration = Duration::from_secs(120);

/// HG-3: a services manager that is stopped is killed and started again, its services run on, and the
/// watchdog, which would have bitten by then, leaves the machine alone. A service that never ends
/// delays a switch-off within its bound, and the state partition is left clean.
#[test]
fn a_dead_manager_and_a_service_that_never_ends() -> Result<()> {
    let mut machine = Template::of_release("v1")?.start("watchdog")?;
    let boot = guest::boot_id(&machine)?;
    let stubborn = "trap \"\" TERM; echo born; while true; do sleep 1000; done";
    enable(&machine, "stubborn", stubborn, "stop_s = 300")?;
    // Not by an order: nobody would answer it.
    let stop = "for it in /proc/[0-9]*; do read -r name < $it/comm; \
                if [ \"$name\" = os-services ]; then kill -STOP ${it#/proc/}; fi; done";
    let rest = "kind = \"oneshot\"\nnamespaces = []\ncapabilities = [\"CAP_KILL\"]";
    let file = write(&machine, "freeze", stop, rest)?;
    let mut asking = machine.ssh()?.spawn(&format!("osctl service enable {file}"), NOTICED)?;
    let frozen = Instant::now();
    wait::until("the dead manager to be noticed", NOTICED, || {
        let told = machine.serial().contains("os-services says nothing any more; killing it");
        Ok(told.then_some(()))
    })?;
    // The client's end is the frozen manager's.
    let _ = asking.wait();
    wait::asking("the next manager to answer", NOTICED, || {
        let (code, answer) = guest::osctl(&machine, "service status stubborn")?;
        let runs = answer.get("state").and_then(|it| it.as_str()) == Some("running");
        Ok((code == 0 && runs).then_some(()))
    })?;
    let text = machine.ssh()?.run("osctl service logs stubborn")?.ok("logs")?;
    assert_eq!(text.trim(), "born", "it ran on");
    assert!(frozen.elapsed() > Duration::from_secs(60), "the watchdog has had its time");
    assert_eq!(guest::boot_id(&machine)?, boot, "and has not bitten");

    let state = state_partition(&machine)?;
    machine.ssh()?.run("poweroff")?.ok("poweroff")?;
    machine.wait_off(DOWN)?;
    is_clean(&machine, state)
}

fn write(machine: &Machine, name: &str, shell: &str, rest: &str) -> Result<String> {
    let path = format!("/tmp/{name}.toml");
    let head = format!("format = 1\nname = \"{name}\"\ncommand = [\"/bin/sh\", \"-c\", '{shell}']");
    machine.ssh()?.run(&format!("cat > {path} <<'END'\n{head}\n{rest}\nEND\n"))?.ok(&path)?;
    Ok(path)
}

fn enable(machine: &Machine, name: &str, shell: &str, rest: &str) -> Result<()> {
    let file = write(machine, name, shell, rest)?;
    let (code, answer) = guest::osctl(machine, &format!("service enable {file}"))?;
    ensure!(code == 0, "{answer}");
    Ok(())
}

/// Where the state partition begins on the disk, in bytes.
fn state_partition(machine: &Machine) -> Result<u64> {
    let find = "cat /sys/class/block/$(basename $(findmnt -no SOURCE -T /var/lib/bascule))/start";
    let start = machine.ssh()?.run(find)?.ok("where state begins")?;
    let sector: u64 = start.trim().parse().with_context(|| format!("{start:?}"))?;
    Ok(sector * 512)
}

/// The superblock says so: state 1 at 0x3a, and no journal to play (bit 2 at 0x60).
fn is_clean(machine: &Machine, state: u64) -> Result<()> {
    let superblock = disk::read(&machine.disk_file(), Extent { offset: state + 1024, size: 1024 })?;
    let short = |at: usize| superblock.get(at..at + 2).map(|it| u16::from_le_bytes([it[0], it[1]]));
    ensure!(short(0x38) == Some(0xef53), "no superblock there");
    ensure!(short(0x3a) == Some(1), "state is {:?}", short(0x3a));
    let journal = short(0x60).context("features")? & 4;
    ensure!(journal == 0, "the journal has to be played");
    Ok(())
}
