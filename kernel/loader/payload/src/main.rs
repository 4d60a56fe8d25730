//! Stands where a kernel would: a stub starts it, it says how it was started, and ends as its
//! command line tells. Tests of the loader need no kernel then, and take a second each.

#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("payload: runs under UEFI only");
}

#[cfg(target_os = "uefi")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    uefi::println!("payload: {info}");
    uefi::runtime::reset(
        uefi::runtime::ResetType::SHUTDOWN,
        uefi::Status::ABORTED,
        None,
    )
}

#[cfg(target_os = "uefi")]
mod payload {
    use alloc::string::String;
    use alloc::vec::Vec;

    use uefi::proto::loaded_image::LoadedImage;
    use uefi::runtime::{self, ResetType, VariableVendor};
    use uefi::{CStr16, Guid, Status, boot, cstr16, guid, println};

    /// What the loader tells os-init.
    const BOOT_NAME: &CStr16 = cstr16!("BasculeBoot");
    const BOOT_VENDOR: Guid = guid!("a166b9c7-8791-47a2-bf80-c0ad67737ea9");
    /// What a stub tells.
    const STUB_VENDOR: Guid = guid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");

    /// Says how it was started and does what the word `end=…` of its command line says.
    #[uefi::entry]
    fn main() -> Status {
        let options = load_options();
        println!("payload: options={options}");
        println!(
            "payload: part={}",
            text(cstr16!("LoaderDevicePartUUID"), STUB_VENDOR)
        );
        println!(
            "payload: image={}",
            text(cstr16!("LoaderImageIdentifier"), STUB_VENDOR)
        );
        println!("payload: stub={}", text(cstr16!("StubInfo"), STUB_VENDOR));
        let told = variable(BOOT_NAME, BOOT_VENDOR);
        println!("payload: boot={}", hex(&told));
        let end = options
            .split_whitespace()
            .find_map(|word| word.strip_prefix("end="));
        println!("payload: end={}", end.unwrap_or("off"));
        match end {
            Some("return") => Status::LOAD_ERROR,
            Some("reset") => runtime::reset(ResetType::COLD, Status::SUCCESS, None),
            Some("hang") => loop {
                core::hint::spin_loop();
            },
            _ => runtime::reset(ResetType::SHUTDOWN, Status::SUCCESS, None),
        }
    }

    fn load_options() -> String {
        let Ok(image) = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()) else {
            return String::from("?");
        };
        image
            .load_options_as_cstr16()
            .map_or_else(|_| String::new(), |text| alloc::format!("{text}"))
    }

    fn variable(name: &CStr16, vendor: Guid) -> Vec<u8> {
        runtime::get_variable_boxed(name, &VariableVendor(vendor))
            .map(|(bytes, _)| bytes.into_vec())
            .unwrap_or_default()
    }

    fn text(name: &CStr16, vendor: Guid) -> String {
        let bytes = variable(name, vendor);
        let units = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        char::decode_utf16(units.take_while(|&unit| unit != 0))
            .map(|c| c.unwrap_or('?'))
            .collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .map(|byte| alloc::format!("{byte:02x}"))
            .collect()
    }
}
