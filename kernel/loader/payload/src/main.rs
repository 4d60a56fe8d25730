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
    uefi::runtime::reset(uefi::runtime::ResetType::SHUTDOWN, uefi::Status::ABORTED, None)
}

#[cfg(target_os = "uefi")]
mod dead_entries;

#[cfg(target_os = "uefi")]
mod payload {
    use alloc::string::String;
    use alloc::vec::Vec;

    use uefi::fs::FileSystem;
    use uefi::proto::BootPolicy;
    use uefi::proto::device_path::DevicePath;
    use uefi::proto::device_path::build::{self, DevicePathBuilder};
    use uefi::proto::loaded_image::LoadedImage;
    use uefi::proto::media::fs::SimpleFileSystem;
    use uefi::runtime::{self, ResetType, VariableVendor};
    use uefi::{CStr16, Guid, Status, boot, cstr16, guid, println};

    use crate::dead_entries;

    /// What the loader tells os-init.
    const BOOT_NAME: &CStr16 = cstr16!("BasculeBoot");
    const BOOT_VENDOR: Guid = guid!("a166b9c7-8791-47a2-bf80-c0ad67737ea9");
    /// What a stub tells.
    const STUB_VENDOR: Guid = guid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");

    /// Says how it was started and does what the word `end=…` of its command line says.
    #[uefi::entry]
    fn main() -> Status {
        if let Some(loader) = another_program() {
            println!("payload: hands load options on");
            return start_with_options(loader);
        }
        let options = load_options();
        println!("payload: options={options}");
        println!("payload: part={}", text(cstr16!("LoaderDevicePartUUID"), STUB_VENDOR));
        println!("payload: image={}", text(cstr16!("LoaderImageIdentifier"), STUB_VENDOR));
        println!("payload: stub={}", text(cstr16!("StubInfo"), STUB_VENDOR));
        let told = variable(BOOT_NAME, BOOT_VENDOR);
        println!("payload: boot={}", hex(&told));
        if options.split_whitespace().any(|word| word == "entries=dead") {
            let left = dead_entries::leave();
            println!("payload: entries left, {left:?}");
        }
        let end = options.split_whitespace().find_map(|word| word.strip_prefix("end="));
        println!("payload: end={}", end.unwrap_or("off"));
        match end {
            Some("stub-of-no-device") => start_stub_of_no_device(),
            Some("return") => Status::LOAD_ERROR,
            Some("reset") => runtime::reset(ResetType::COLD, Status::SUCCESS, None),
            Some("hang") => loop {
                // SAFETY: waits for an interrupt, as a program that waits for ever does.
                unsafe { core::arch::asm!("hlt", options(nomem, nostack)) };
            },
            Some("stop") => loop {
                // SAFETY: stops as a processor does after an exception: nothing wakes it.
                unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
            },
            _ => runtime::reset(ResetType::SHUTDOWN, Status::SUCCESS, None),
        }
    }

    /// The loader, where it lies beside us and we were started in its place.
    fn another_program() -> Option<uefi::Handle> {
        let device =
            boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).ok()?.device()?;
        let device_path = boot::open_protocol_exclusive::<DevicePath>(device).ok()?;
        let mut storage = Vec::new();
        let mut builder = DevicePathBuilder::with_vec(&mut storage);
        for node in device_path.node_iter() {
            builder = builder.push(&node).ok()?;
        }
        let name = cstr16!("\\EFI\\test\\loader.efi");
        let path =
            builder.push(&build::media::FilePath { path_name: name }).ok()?.finalize().ok()?;
        let source = boot::LoadImageSource::FromDevicePath {
            device_path: path,
            boot_policy: BootPolicy::ExactMatch,
        };
        boot::load_image(boot::image_handle(), source).ok()
    }

    /// Starts a stub as a loader would that reads it into memory and gives it no device path.
    /// It finds the device it came from empty.
    fn start_stub_of_no_device() -> Status {
        let systems = boot::find_handles::<SimpleFileSystem>().unwrap_or_default();
        let bytes = systems.into_iter().find_map(|handle| {
            let system = boot::open_protocol_exclusive::<SimpleFileSystem>(handle).ok()?;
            FileSystem::new(system).read(cstr16!("\\EFI\\test\\inner.efi")).ok()
        });
        let Some(buffer) = bytes else { return Status::NOT_FOUND };
        let source = boot::LoadImageSource::FromBuffer { buffer: &buffer, file_path: None };
        match boot::load_image(boot::image_handle(), source).and_then(boot::start_image) {
            Ok(()) => Status::SUCCESS,
            Err(error) => error.status(),
        }
    }

    /// Starts a program with load options, as a boot entry with options would.
    fn start_with_options(program: uefi::Handle) -> Status {
        let options = cstr16!("x evil=options initrd=evil");
        if let Ok(mut image) = boot::open_protocol_exclusive::<LoadedImage>(program) {
            let bytes = options.num_bytes() as u32;
            // SAFETY: a constant, so it outlives the program.
            unsafe { image.set_load_options(options.as_ptr().cast(), bytes) };
        }
        match boot::start_image(program) {
            Ok(()) => Status::SUCCESS,
            Err(error) => error.status(),
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
        let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        char::decode_utf16(units.take_while(|&unit| unit != 0)).map(|c| c.unwrap_or('?')).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
    }
}
