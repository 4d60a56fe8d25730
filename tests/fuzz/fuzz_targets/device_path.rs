//! Device paths as a firmware hands them out: the disk of a partition, and a path made from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::device_path::{Partition, disk_of, file_in};

fuzz_target!(|data: &[u8]| {
    let Some(disk) = disk_of(data) else { return };
    // The disk is a beginning of the path, and ends.
    let (head, end) = disk.split_at(disk.len() - 4);
    assert!(data.starts_with(head) && end == [0x7f, 0xff, 4, 0]);
    let partition = Partition { number: 1, first_lba: 2048, sectors: 1, guid: [1; 16] };
    let name = String::from_utf8_lossy(data);
    let path = file_in(&disk, Some(&partition), &name);
    // What was made is a path again, and its disk is the one it was made from.
    assert_eq!(disk_of(&path).as_deref(), Some(disk.as_slice()));
});
