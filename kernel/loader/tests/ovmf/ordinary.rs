//! An ordinary start.

use partition_layout::record::{Stage, Target};
use partition_layout::slot::Slot;

use crate::disk::{Contents, DISK_ID};
use crate::machine::{Folder, Machine};
use crate::uki::Uki;
use crate::{to_the_end, told};

#[test]
fn the_default_slot_starts() {
    let folder = Folder::new("the_default_slot_starts");
    let kernel = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let mut image =
        Contents { slots: [Some(&kernel), None], ..Contents::default() }.write(&folder.0);
    let before = image.record();
    let serial = Machine::default().run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::A), "{serial}");
    assert!(told.record_written && told.reasons.is_empty(), "{told:?}");
    assert_eq!(told.disk_id, DISK_ID);
    assert!(told.buffer < 1 << 32);
    let after = image.record();
    assert_eq!((after.nonce, after.generation), (told.nonce, told.generation));
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(after.last.stage, Stage::Loader);
    assert!(serial.contains("payload: options=from=a\n"), "{serial}");
    assert!(serial.contains("payload: image=\\bascule-a-1.a.efi\n"), "{serial}");
    // The slot's own partition, so nothing of the ESP lies beside the image.
    assert!(serial.contains("payload: part=04040404-"), "{serial}");
}
