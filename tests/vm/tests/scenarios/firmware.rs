//! FW-7 and what firmware can be told: new variables at every boot, SMBIOS strings, an ESP that
//! is the same for life.

use std::fs;

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest};

/// What an attacker or an eager hypervisor may append to the stub's command line.
const SMBIOS: &str = "type=11,value=io.systemd.stub.kernel-cmdline-extra=rdinit=/bin/sh \
                      init=/bin/sh systemd.unit=rescue.target";

#[test]
fn a_command_line_from_smbios_changes_nothing_that_matters() -> anyhow::Result<()> {
    let disk = artifacts::release("v1")?.disk();
    let extra = vec!["-smbios".to_owned(), SMBIOS.to_owned()];
    let options = Options { extra, ..Options::new("smbios", &disk) };
    let mut machine = Machine::start(options)?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (1, "a".to_owned()));
    let line = machine.ssh()?.run("cat /proc/cmdline")?.ok("cat /proc/cmdline")?;
    assert!(!line.contains("rescue.target"), "the loader blanks the strings: {line}");
    Ok(())
}

#[test]
fn new_firmware_variables_at_every_boot() -> anyhow::Result<()> {
    let disk = artifacts::release("v1")?.disk();
    let mut machine = Machine::start(Options::new("new-vars", &disk))?;
    for _ in 0..2 {
        assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (1, "a".to_owned()));
        machine.power_cut()?;
        fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", machine.vars())?;
        machine.power_on()?;
    }
    guest::wait_ssh(&mut machine, guest::SSH)
}
