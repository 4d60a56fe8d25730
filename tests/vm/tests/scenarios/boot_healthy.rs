//! A new machine boots from its disk, its services come up, the boot is confirmed.

use vm_tests::machine::{Machine, Options};
use vm_tests::{artifacts, guest};

#[test]
fn boots_and_is_confirmed() -> anyhow::Result<()> {
    let release = artifacts::release("v1")?;
    let mut machine = Machine::start(Options::new("boot-healthy", &release.disk()))?;
    let (number, slot) = guest::wait_confirmed(&mut machine, guest::BOOT)?;
    assert_eq!((number, slot.as_str()), (1, "a"));
    Ok(())
}
