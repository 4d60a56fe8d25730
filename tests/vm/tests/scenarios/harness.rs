//! The harness itself: a machine is kept in the middle of its life and goes on from there.

use std::fs;
use std::time::Duration;

use vm_tests::artifacts;
use vm_tests::machine::{Options, qemu_img};
use vm_tests::template::Template;

const FIRMWARE: Duration = Duration::from_secs(120);
/// What the firmware says before it looks for something to start.
const GREETING: &str = "BdsDxe";

#[test]
fn a_restored_machine_goes_on_and_can_be_reset() -> anyhow::Result<()> {
    fs::create_dir_all(artifacts::work_dir())?;
    let disk = artifacts::work_dir().join("empty.qcow2");
    if !disk.exists() {
        qemu_img(&["create", "-q", "-f", "qcow2", &disk.display().to_string(), "64M"])?;
    }
    let options = Options { memory_mib: 256, ..Options::new("template-firmware", &disk) };
    let template =
        Template::made("firmware", options, |machine| machine.wait_serial(GREETING, FIRMWARE))?;
    let mut machine = template.start("harness")?;
    machine.check_running()?;
    assert!(!machine.serial().contains(GREETING), "the firmware did not start again");
    machine.reset()?;
    machine.wait_serial(GREETING, FIRMWARE)?;
    machine.power_cut()?;
    machine.mark_serial();
    machine.power_on()?;
    machine.wait_serial(GREETING, FIRMWARE)
}
