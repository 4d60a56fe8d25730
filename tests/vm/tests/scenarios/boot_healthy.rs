//! A new machine boots from its disk, its services come up, the boot is confirmed.

use serde_json::Value;
use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest};

#[test]
fn boots_and_is_confirmed() -> anyhow::Result<()> {
    boots(false)
}

/// Boots release 1 on a new machine.
pub fn boots(secure_boot: bool) -> anyhow::Result<()> {
    let release = artifacts::release("v1")?;
    let name = if secure_boot { "boot-secure" } else { "boot-healthy" };
    let options = Options { secure_boot, ..Options::new(name, &release.disk()) };
    let mut machine = Machine::start(options)?;
    let (number, slot) = guest::wait_confirmed(&mut machine, guest::BOOT)?;
    assert_eq!((number, slot.as_str()), (1, "a"));
    let facts = guest::boot_facts(&machine)?;
    assert_eq!(facts.get("state").and_then(Value::as_str), Some("ok"), "{facts}");
    let enabled = machine.ssh()?.run(
        "od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    )?;
    if enabled.code == 0 {
        assert_eq!(enabled.stdout.trim() == "1", secure_boot);
    }
    let serial = machine.serial();
    let ended = serial.lines().find(|line| line.contains("ended with status"));
    assert_eq!(ended, None, "a service of a healthy machine ended");
    let serial = machine.serial();
    let ended = serial.lines().find(|line| line.contains("ended with status"));
    assert_eq!(ended, None, "a service of a healthy machine ended");
    Ok(())
}
