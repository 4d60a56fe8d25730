//! Apply, reboot, confirm; roll back by hand; go forward again. Through five updates and a
//! rollback, the EFI system partition stays as it was made (FW-7), and the updater's memory does not
//! follow the size of the image.

use partition_layout::layout;
use serde_json::Value;
use vm_tests::disk::{self, Extent};
use vm_tests::machine::{Machine, Options};
use vm_tests::prove::recording::Recording;
use vm_tests::{artifacts, guest, registry::Registry};

const ESP: Extent = Extent { offset: layout::ALIGNMENT, size: layout::FRESH[0].size };

/// What the updater may take, in bytes.
const RSS_MAX: u64 = 48 << 20;
/// What two images, of which one is four times and 150 MB larger than the other, may differ in: a
/// tenth of that. The allocator's mood, and how far the network is ahead of the disk, make half of it.
const RSS_APART: u64 = 16 << 20;

#[test]
fn an_update_is_kept_and_can_be_left_and_taken_again() -> anyhow::Result<()> {
    // Release 2 is applied, confirmed in its trial, left by a rollback, and the machine is off: the
    // life that the proof cuts into pieces. Each step of it has been checked.
    let life = Recording::of_update()?;
    let mut machine = Machine::start(Options::new("apply", &life.left()))?;
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
    let big = peak_rss(&answer);
    // The same digest again: armed already.
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 1, "{answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    let (code, answer) = guest::osupdate(&machine, "check", guest::APPLY)?;
    assert_eq!(code, 1, "{answer}");

    // Three more, to five: each is written whole and armed.
    let mut small = 0;
    for name in ["panic", "hang", "small"] {
        registry.publish(&artifacts::release(name)?)?;
        let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
        assert_eq!(code, 0, "{answer}");
        small = peak_rss(&answer);
    }
    println!("peak RSS {small} and {big} bytes");
    assert!(small > 0 && small <= RSS_MAX && big <= RSS_MAX, "{small} {big}");
    assert!(big.abs_diff(small) <= RSS_APART, "{small} {big}");

    machine.power_cut()?;
    let made = disk::read(&artifacts::release("v1")?.disk(), ESP)?;
    assert!(made.get(510..512) == Some(&[0x55, 0xaa]), "no file system where the ESP should be");
    assert!(disk::read(&machine.disk_file(), ESP)? == made, "the ESP has changed");
    Ok(())
}

fn peak_rss(answer: &Value) -> u64 {
    answer.get("updater_peak_rss_bytes").and_then(Value::as_u64).unwrap_or(u64::MAX)
}
