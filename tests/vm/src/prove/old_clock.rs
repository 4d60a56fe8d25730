//! A clock that lies in the past, on a large state partition with many files: no reason for a full
//! check, after a clean end or after a power cut.
//!
//! What a full check would cost shows in the processor time of the boot, compared with that of a boot
//! of the same disk at the right time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::{Machine, Options, qemu_img};
use crate::{artifacts, guest};

/// The disk: what a full check reads of it grows with it.
const DISK: &str = "2T";
/// Files in one folder.
const IN_A_FOLDER: u32 = 1000;
/// Making a million files takes that long under emulation.
const MAKING: Duration = Duration::from_secs(3600);
/// Ten years before the files were made.
const PAST: &str = "base=2015-01-01T00:00:00";
/// A boot of one machine varies by some percent from run to run. A full check of a disk like this
/// takes several times what all of a boot does.
const RATIO_MAX: f64 = 1.5;

/// The larger ratio of two, a boot in the past to one at the right time, each of a disk with so many
/// `files`; `None` for no files.
///
/// # Errors
/// A boot in the past is not confirmed, or takes much longer.
pub fn run(name: &str, files: u32) -> Result<Option<f64>> {
    if files == 0 {
        return Ok(None);
    }
    let mut machine = Machine::prepare(Options::new(name, &artifacts::release("v1")?.disk()))?;
    qemu_img(&["resize", "-q", &machine.disk_file().display().to_string(), DISK])?;
    machine.power_on()?;
    guest::wait_confirmed(&mut machine, guest::BOOT * 2)?;
    let folders = files.div_ceil(IN_A_FOLDER);
    let make = format!(
        "mkdir /var/many && cd /var/many && for d in {{1..{folders}}}; do mkdir $d && touch \
         $d/f{{1..{IN_A_FOLDER}}} || exit 1; done; sync"
    );
    machine.ssh()?.run_within(&make, MAKING)?.ok("make files")?;
    let mut worst: f64 = 0.0;
    for cut in [false, true] {
        let now = boot(&mut machine, None, cut).context("boot at the right time")?;
        let past = boot(&mut machine, Some(PAST), cut).context("boot in the past")?;
        let ratio = past.as_secs_f64() / now.as_secs_f64();
        println!(
            "  {files} files on {DISK}, {}: {:.1} s at the right time, {:.1} s in 2015",
            if cut { "after a power cut" } else { "after a clean end" },
            now.as_secs_f64(),
            past.as_secs_f64()
        );
        worst = worst.max(ratio);
    }
    ensure!(worst < RATIO_MAX, "a boot in the past took {worst:.2} times as long");
    Ok(Some(worst))
}

/// Ends the machine and boots it at this time; what its processors computed until it was confirmed.
fn boot(machine: &mut Machine, time: Option<&str>, cut: bool) -> Result<Duration> {
    if cut {
        machine.power_cut()?;
    } else {
        machine.ssh()?.run("poweroff")?.ok("poweroff")?;
        machine.wait_off(guest::BOOT)?;
    }
    machine.set_clock(time);
    machine.mark_serial();
    machine.power_on()?;
    guest::wait_confirmed(machine, guest::BOOT * 2)?;
    Ok(machine.processor_time())
}
