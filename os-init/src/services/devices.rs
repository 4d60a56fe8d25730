//! Device nodes of a service: from names and `@selectors` to numbers.

use super::file::ServiceFile;
use super::spec::Device;
use crate::boot_facts::BootFacts;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

/// Resolves the devices of a service. One that does not exist is left out: a machine without a
/// screen still has a console on its serial line.
pub fn resolve(file: &ServiceFile, facts: Option<&BootFacts>) -> Vec<Device> {
    let mut devices = Vec::new();
    for name in &file.devices {
        let (path, write) = match name.as_str() {
            "@other-slot" => (facts.and_then(BootFacts::other_slot_device), true),
            "@running-slot" => (facts.and_then(BootFacts::running_slot_device), false),
            plain => (Some(plain.to_string()), true),
        };
        let Some(device) = path.and_then(|path| stat(path, write)) else { continue };
        devices.push(device);
    }
    devices
}

fn stat(path: String, write: bool) -> Option<Device> {
    let metadata = fs::metadata(&path).ok()?;
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    let number = metadata.rdev();
    Some(Device {
        path,
        block: kind.is_block_device(),
        major: nix::sys::stat::major(number),
        minor: nix::sys::stat::minor(number),
        write,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_from_the_node_and_missing_ones_are_left_out() {
        let file = ServiceFile::parse(
            "format = 1\nname = \"x\"\ncommand = [\"/x\"]\n\
             devices = [\"/dev/null\", \"/dev/none-such\", \"@other-slot\", \"/dev/shm\"]\n",
        )
        .unwrap();
        let devices = resolve(&file, None);
        assert_eq!(devices.len(), 1);
        let null = &devices[0];
        assert_eq!((null.block, null.major, null.minor), (false, 1, 3));
    }
}
