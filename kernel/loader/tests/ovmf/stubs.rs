//! FW-4: real kernels behind every stub that an image may have, Secure Boot on and off.

use std::fs;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::{Kernel, Uki, given};

fn starts(stub: &str, secure_boot: bool) {
    let folder = Folder::new(&format!("stub_{stub}_{secure_boot}"));
    let kernel = fs::read(given("BASCULE_KERNEL")).expect("read the kernel");
    let uki = Uki {
        stub,
        cmdline: "console=ttyS0 from=signed-command-line",
        kernel: Kernel::Linux(&kernel),
        signed: secure_boot,
        ..Uki::default()
    };
    let uki = uki.build(&folder.0);
    let contents =
        Contents { slots: [Some(&uki), None], signed_loader: secure_boot, ..Contents::default() };
    let image = contents.write(&folder.0);
    let machine = Machine { secure_boot, memory_mib: 1024, ..Machine::default() };
    let line = "Command line: console=ttyS0 from=signed-command-line";
    let serial = machine.run(&image.path, |text| text.contains(line));
    assert!(serial.contains(line), "{serial}");
    assert!(!serial.contains("slot A: kernel image"), "{serial}");
}

#[test]
fn newest_stub() {
    starts("newest", false);
}
