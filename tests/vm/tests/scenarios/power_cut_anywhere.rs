//! Power cuts at every flush of a real machine's update, confirmation and rollback, and between:
//! disks rebuilt from the log of its writes, judged, and some of them booted.

use vm_tests::prove::run::{self, Size};

#[test]
fn every_disk_that_a_cut_leaves_boots() -> anyhow::Result<()> {
    run::run(Size::QUICK)
}
