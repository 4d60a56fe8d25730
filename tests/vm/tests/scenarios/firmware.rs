//! FW-7 and what firmware can be told: new variables at every boot, SMBIOS strings, an ESP that
//! is the same for life.

use std::fs;

use vm_tests::guest;
use vm_tests::machine::{Machine, Options};
use vm_tests::template::Template;

/// What an attacker or an eager hypervisor may append to the stub's command line.
const SMBIOS: &str = "type=11,value=io.systemd.stub.kernel-cmdline-extra=rdinit=/bin/sh \
                      init=/bin/sh systemd.unit=rescue.target";

/// Each boot but the template's finds variables that have never been used; the last one also finds
/// strings of an attacker.
#[test]
fn new_variables_at_every_boot_and_foreign_strings_change_nothing_that_matters()
-> anyhow::Result<()> {
    let template = Template::of_release("v1")?;
    let base = template.base();
    let mut machine = Machine::start(Options::new("new-vars", &base))?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (1, "a".to_owned()));
    machine.power_cut()?;
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", machine.vars())?;
    machine.add_option("-smbios", SMBIOS);
    machine.power_on()?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (1, "a".to_owned()));
    let line = machine.ssh()?.run("cat /proc/cmdline")?.ok("cat /proc/cmdline")?;
    assert!(!line.contains("rescue.target"), "the loader blanks the strings: {line}");
    Ok(())
}
