//! A new machine boots from its disk, its services come up, the boot is confirmed.

use serde_json::Value;
use vm_tests::guest;
use vm_tests::machine::Machine;
use vm_tests::template::Template;

/// The boot is the one that every other scenario starts from.
#[test]
fn boots_and_is_confirmed() -> anyhow::Result<()> {
    let template = Template::of_release("v1")?;
    let machine = template.start("boot-healthy")?;
    is_healthy(&machine, &template.serial()?, false)
}

/// Whether `machine`, whose serial line said `serial`, runs release 1 and wants for nothing.
pub fn is_healthy(machine: &Machine, serial: &str, secure_boot: bool) -> anyhow::Result<()> {
    assert!(serial.contains(guest::CONFIRMED), "not confirmed");
    let ended = serial.lines().find(|line| line.contains("ended with status"));
    assert_eq!(ended, None, "a service of a healthy machine ended");
    assert_eq!(guest::running(machine)?, (1, "a".to_owned()));
    let facts = guest::boot_facts(machine)?;
    assert_eq!(facts.get("state").and_then(Value::as_str), Some("ok"), "{facts}");
    let enabled = machine.ssh()?.run(
        "od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    )?;
    if enabled.code == 0 {
        assert_eq!(enabled.stdout.trim() == "1", secure_boot);
    }
    Ok(())
}
