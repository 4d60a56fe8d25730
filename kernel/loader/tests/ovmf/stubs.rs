//! FW-4: kernel images with every stub that an image may have, Secure Boot on and off.

use std::fs;

use partition_layout::record::Target;
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::told_each;
use crate::uki::{Kernel, SHIPPED_STUB, Uki, given};

const LINUX_LINE: &str = "Command line: console=ttyS0 from=signed-command-line";

/// Slot A has the stub `a`, and comes back after the payload has said how it was started; slot B
/// has the stub `b` in front of the payload or of Debian's kernel.
fn both_start(a: &str, b: &str, linux: bool, secure_boot: bool) -> String {
    let folder = Folder::new(&format!("stubs_{a}_{b}_{secure_boot}"));
    let kernel = fs::read(given("BASCULE_KERNEL")).expect("read the kernel");
    let signed = secure_boot;
    let uki = Uki { stub: a, cmdline: "from=a end=return", signed, ..Uki::default() };
    let first = uki.build(&folder.0);
    let second = if linux {
        let cmdline = "console=ttyS0 from=signed-command-line";
        Uki { stub: b, cmdline, signed, kernel: Kernel::Linux(&kernel), ..Uki::default() }
    } else {
        Uki { stub: b, cmdline: "from=b", signed, ..Uki::default() }
    };
    let second = second.build(&folder.0);
    let slots = [Some(first.as_slice()), Some(second.as_slice())];
    let contents = Contents { slots, signed_loader: secure_boot, ..Contents::default() };
    let disk = contents.write(&folder.0);
    let machine = Machine { secure_boot, memory_mib: 1024, ..Machine::default() };
    let serial = machine.run(&disk.path, |text| text.contains(LINUX_LINE));
    let started: Vec<Target> = told_each(&serial).iter().map(|told| told.booted).collect();
    let slots = [Target::Slot(Slot::A), Target::Slot(Slot::B)];
    assert_eq!(started, if linux { &slots[..1] } else { &slots }, "{serial}");
    assert_eq!(serial.contains(LINUX_LINE), linux, "{serial}");
    assert!(serial.contains("payload: options=from=a end=return\n"), "{serial}");
    serial
}

/// The releases of the stubs that started, as they name themselves.
fn releases(serial: &str) -> Vec<u32> {
    let names = serial.lines().filter_map(|line| line.split_once("payload: stub=systemd-stub "));
    let number = |name: &str| name.chars().take_while(char::is_ascii_digit).collect::<String>();
    names.map(|(_, name)| number(name).parse().expect("a release")).collect()
}

#[test]
fn the_oldest_stub_and_the_one_we_ship_start() {
    for secure_boot in [false, true] {
        let serial = both_start("252", SHIPPED_STUB, false, secure_boot);
        assert_eq!(releases(&serial), [252, 257], "{serial}");
        assert!(serial.contains("payload: options=from=b\n"), "{serial}");
    }
}

/// The newest takes no kernel that must be relocated, as the payload must, so it has Debian's.
#[test]
fn the_stub_of_254_and_the_newest_start() {
    for secure_boot in [false, true] {
        let serial = both_start("254", "newest", true, secure_boot);
        assert_eq!(releases(&serial), [254], "{serial}");
    }
}

/// What is shipped: Debian's kernel behind Debian's stub, Secure Boot on.
#[test]
fn linux_starts_behind_the_stub_we_ship() {
    let folder = Folder::new("linux");
    let kernel = fs::read(given("BASCULE_KERNEL")).expect("read the kernel");
    let cmdline = "console=ttyS0 from=signed-command-line";
    let kernel = Kernel::Linux(&kernel);
    let uki = Uki { cmdline, kernel, signed: true, ..Uki::default() }.build(&folder.0);
    let contents =
        Contents { slots: [Some(&uki), None], signed_loader: true, ..Contents::default() };
    let image = contents.write(&folder.0);
    let machine = Machine { secure_boot: true, memory_mib: 1024, ..Machine::default() };
    let serial = machine.run(&image.path, |text| text.contains(LINUX_LINE));
    assert!(serial.contains(LINUX_LINE), "{serial}");
    assert!(!serial.contains("slot A: kernel image "), "{serial}");
}
