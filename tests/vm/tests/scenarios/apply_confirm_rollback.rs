//! Apply, reboot, confirm; roll back by hand; go forward again. FW-7: through five updates and a
//! rollback, the EFI system partition stays as it was made.

use partition_layout::layout;
use vm_tests::disk::{self, Extent};
use vm_tests::machine::{Machine, Options};
use vm_tests::prove::recording::Recording;
use vm_tests::{artifacts, guest, registry::Registry};

const ESP: Extent = Extent { offset: layout::ALIGNMENT, size: layout::FRESH[0].size };

#[test]
fn an_update_is_kept_and_can_be_left_and_taken_again() -> anyhow::Result<()> {
    // Release 2 is applied, confirmed in its trial, left by a rollback, and the machine is off: the
    // life that the proof cuts into pieces. Each step of it has been checked.
    let life = Recording::of_update()?;
    let mut machine = Machine::start(Options::new("apply", life.left()))?;
    let registry = Registry::start("apply")?;
    registry.publish(&artifacts::release("v2")?)?;
    machine.route_registry(Some(registry.port()))?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (1, "a".to_owned()));
    let (_, history) = guest::osupdate(&machine, "history", guest::APPLY)?;
    assert!(history.to_string().contains("rollback"), "{history}");

    // The release that was left is held; a person may take it again by force.
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 2, "{answer}");
    let (code, answer) = guest::osupdate(&machine, "apply --force", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    // The same digest again: armed already.
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 1, "{answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    let (code, answer) = guest::osupdate(&machine, "check", guest::APPLY)?;
    assert_eq!(code, 1, "{answer}");

    // Three more, to five: each is written whole and armed.
    for name in ["panic", "hang", "small"] {
        registry.publish(&artifacts::release(name)?)?;
        let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
        assert_eq!(code, 0, "{answer}");
    }

    machine.power_cut()?;
    let made = disk::read(&artifacts::release("v1")?.disk(), ESP)?;
    assert!(made.get(510..512) == Some(&[0x55, 0xaa]), "no file system where the ESP should be");
    assert!(disk::read(&machine.disk_file(), ESP)? == made, "the ESP has changed");
    Ok(())
}
