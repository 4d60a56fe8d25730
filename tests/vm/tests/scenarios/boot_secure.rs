//! The same boot with the firmware checking signatures.

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest};

use crate::boot_healthy::is_healthy;

#[test]
fn boots_and_is_confirmed_under_secure_boot() -> anyhow::Result<()> {
    let disk = artifacts::release("v1")?.disk();
    let options = Options { secure_boot: true, ..Options::new("boot-secure", &disk) };
    let mut machine = Machine::start(options)?;
    guest::wait_confirmed(&mut machine, guest::BOOT)?;
    is_healthy(&machine, &machine.serial(), true)
}
