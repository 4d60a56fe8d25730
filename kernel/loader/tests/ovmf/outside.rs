//! What somebody outside the signed image can say, and that it changes nothing.

use std::fs;
use std::process::Command;

use partition_layout::loader_plan::Reason;
use partition_layout::record::{Cause, Target};
use partition_layout::slot::Slot;

use crate::disk::Contents;
use crate::machine::{Folder, Machine};
use crate::uki::{Uki, add_on, given, run};
use crate::{to_the_end, told};

fn smbios(value: &str) -> [String; 2] {
    ["-smbios".to_owned(), format!("type=11,value={value}")]
}

/// Strings, add-ons, credentials, system extensions and load options, all at once.
#[test]
fn nothing_from_outside_reaches_the_command_line() {
    let folder = Folder::new("nothing_from_outside");
    let kernel = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let add_on = add_on(&folder.0, "evil=addon");
    let first = fs::read(given("BASCULE_PAYLOAD")).expect("read the payload");
    let image = Contents {
        slots: [Some(&kernel), None],
        before_loader: Some(&first),
        beside: &[
            ("loader/addons/evil.addon.efi", &add_on),
            ("bascule-a-1.a.efi.extra.d/evil.addon.efi", &add_on),
            ("EFI/BOOT/BOOTX64.EFI.extra.d/evil.addon.efi", &add_on),
            ("EFI/test/loader.efi.extra.d/evil.addon.efi", &add_on),
            ("loader/credentials/evil.cred", b"evil"),
        ],
        ..Contents::default()
    }
    .write(&folder.0);
    let more = [
        smbios("io.systemd.stub.kernel-cmdline-extra=evil=string"),
        smbios("io.systemd.boot.kernel-cmdline-extra=evil=string"),
    ];
    let machine = Machine { more: more.concat(), ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    assert!(serial.contains("payload: hands load options on"), "{serial}");
    assert!(serial.contains("2 SMBIOS strings blanked"), "{serial}");
    assert!(serial.contains("payload: options=from=a\n"), "{serial}");
    assert_eq!(told(&serial).booted, Target::Slot(Slot::A));
}

/// The control to the test above: without the loader, each of them gets in.
#[test]
fn what_the_loader_keeps_out_gets_in_without_it() {
    let folder = Folder::new("what_the_loader_keeps_out");
    let kernel = Uki { cmdline: "from=esp", ..Uki::default() }.build(&folder.0);
    let add_on = add_on(&folder.0, "evil=addon");
    let image = Contents {
        before_loader: Some(&kernel),
        beside: &[("loader/addons/evil.addon.efi", &add_on)],
        ..Contents::default()
    }
    .write(&folder.0);
    run(Command::new("mdel").arg("-i").arg(image.esp_for_mtools()).arg("::/EFI/test/loader.efi"));
    let more = smbios("io.systemd.stub.kernel-cmdline-extra=evil=string").to_vec();
    let machine = Machine { more, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    assert!(serial.contains("evil=addon"), "{serial}");
    assert!(serial.contains("evil=string"), "{serial}");
}

#[test]
fn under_secure_boot_an_unsigned_kernel_leads_to_the_signed_one() {
    let folder = Folder::new("an_unsigned_kernel");
    let a = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let b = Uki { cmdline: "from=b", signed: true, ..Uki::default() }.build(&folder.0);
    let image =
        Contents { slots: [Some(&a), Some(&b)], signed_loader: true, ..Contents::default() }
            .write(&folder.0);
    let machine = Machine { secure_boot: true, ..Machine::default() };
    let serial = machine.run(&image.path, to_the_end);
    let told = told(&serial);
    assert_eq!(told.booted, Target::Slot(Slot::B), "{serial}");
    assert_eq!(told.reasons, [Reason::LoadFailed(Slot::A, Cause::Refused)]);
}

#[test]
fn under_secure_boot_an_unsigned_recovery_does_not_start() {
    let folder = Folder::new("an_unsigned_recovery");
    let recovery = Uki::default().build(&folder.0);
    let image = Contents { recovery: Some(&recovery), signed_loader: true, ..Contents::default() }
        .write(&folder.0);
    let machine = Machine { secure_boot: true, ..Machine::default() };
    let serial = machine.run(&image.path, |text| text.contains("back to the firmware"));
    assert!(serial.contains("recovery: image refused"), "{serial}");
    assert!(!serial.contains("payload:"), "{serial}");
}

/// Two disks with one identity in one machine are normal; only the own one is touched.
#[test]
fn a_cloned_disk_is_left_alone() {
    let folder = Folder::new("a_cloned_disk");
    let kernel = Uki { cmdline: "from=a", ..Uki::default() }.build(&folder.0);
    let mut image =
        Contents { slots: [Some(&kernel), None], ..Contents::default() }.write(&folder.0);
    let clone = folder.0.join("clone.img");
    run(Command::new("cp").arg("--sparse=always").arg(&image.path).arg(&clone));
    let before = fs::read(&clone).expect("read the clone");
    for turn in 1..=2 {
        let machine = Machine { clone: Some(clone.clone()), ..Machine::default() };
        let serial = machine.run(&image.path, to_the_end);
        assert_eq!(image.record().nonce, told(&serial).nonce, "start {turn}: {serial}");
    }
    assert!(fs::read(&clone).expect("read the clone") == before, "the clone was written to");
}
