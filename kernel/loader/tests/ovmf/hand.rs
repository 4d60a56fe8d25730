//! The choice by hand.

use std::time::Duration;

use partition_layout::record::Target;
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::Uki;
use crate::{to_the_end, told};

#[test]
fn a_person_may_choose_the_other_slot() {
    let folder = Folder::new("a_person_may_choose");
    let a = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let b = Uki { cmdline: "from=b", ..Uki::default() }.build(&folder.0);
    let mut image =
        Contents { slots: [Some(&a), Some(&b)], ..Contents::default() }.write(&folder.0);
    let before = image.record();
    // A person sees the question and lets go of the key, some seconds and a hundred keys later.
    let holds_on = Duration::from_secs(4);
    let machine = Machine { answer: Some(b'2'), holds_on, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::B), "{serial}");
    let after = image.record();
    assert_eq!(after.nonce, told.nonce);
    assert_eq!((after.default, after.slots), (before.default, before.slots));
}
