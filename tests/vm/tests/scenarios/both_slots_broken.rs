//! Neither slot can be started: the recovery image gives a shell on the local console.

use vm_tests::disk::{self, Extent, Places};
use vm_tests::machine::{Machine, Options};
use vm_tests::template::Template;
use vm_tests::{artifacts, guest};

#[test]
fn with_both_slots_broken_the_recovery_image_starts() -> anyhow::Result<()> {
    let release = artifacts::release("v1")?;
    // Where things lie is the same on every disk: asked from a machine that runs.
    let running = Template::of_release("v1")?.start("both-broken-ask")?;
    let places = Places::of(&guest::boot_facts(&running)?)?;
    drop(running);
    let mut machine = Machine::prepare(Options::new("both-broken", &release.disk()))?;
    for slot in [places.slot_a, places.slot_b] {
        // More than any image of ours: header, root, kernel and trailer.
        let image = Extent { size: 512 << 20, ..slot };
        disk::fill(&machine.disk_file(), image, 0x5a)?;
    }
    machine.power_on()?;
    machine.wait_serial("recovery", guest::BOOT)?;
    machine.wait_serial("# ", guest::BOOT)
}
