//! Boot entries as a machine has them that had another system before: the network first, then
//! disks that are gone.

use alloc::string::String;
use alloc::vec::Vec;

use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CStr16, CString16, Guid, cstr16, guid};

const GLOBAL: VariableVendor = VariableVendor(guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c"));
const ORDER: &CStr16 = cstr16!("BootOrder");
/// Numbers that no firmware gives its own entries.
const DEAD: [u16; 2] = [0xbad0, 0xbad1];
/// A partition that no disk has.
const GONE: Guid = guid!("dead0000-dead-dead-dead-dead00000000");
const ACTIVE: u32 = 1;
/// Where the description begins: after attributes and the length of the path.
const DESCRIPTION_AT: usize = 6;

/// Puts the network's entry first, then two dead ones, then the rest.
pub fn leave() -> uefi::Result {
    write(&name(DEAD[0])?, &entry("Dead System", &partition_that_is_gone()))?;
    write(&name(DEAD[1])?, &entry("Dead Disk", &disk_that_is_gone()))?;
    let bytes = runtime::get_variable_boxed(ORDER, &GLOBAL)?.0;
    let order: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .filter(|number| !DEAD.contains(number))
        .collect();
    let (mut new, rest): (Vec<u16>, Vec<u16>) = order.into_iter().partition(|&it| is_network(it));
    new.extend(DEAD);
    new.extend(rest);
    let bytes: Vec<u8> = new.iter().flat_map(|number| number.to_le_bytes()).collect();
    write(ORDER, &bytes)
}

fn name(number: u16) -> uefi::Result<CString16> {
    let text = alloc::format!("Boot{number:04X}");
    CString16::try_from(text.as_str()).map_err(|_| uefi::Status::INVALID_PARAMETER.into())
}

fn write(name: &CStr16, bytes: &[u8]) -> uefi::Result {
    let attributes = VariableAttributes::NON_VOLATILE
        | VariableAttributes::BOOTSERVICE_ACCESS
        | VariableAttributes::RUNTIME_ACCESS;
    runtime::set_variable(name, &GLOBAL, attributes, bytes)
}

/// Whether the firmware describes an entry of its own as the network's.
fn is_network(number: u16) -> bool {
    let entry = name(number).and_then(|name| runtime::get_variable_boxed(&name, &GLOBAL));
    let Ok((entry, _)) = entry else { return false };
    let units = entry
        .get(DESCRIPTION_AT..)
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|&unit| unit != 0);
    let text: String = char::decode_utf16(units).map(|it| it.unwrap_or('?')).collect();
    text.contains("PXEv4")
}

fn entry(description: &str, path: &[u8]) -> Vec<u8> {
    let mut entry = ACTIVE.to_le_bytes().to_vec();
    entry.extend((path.len() as u16).to_le_bytes());
    entry.extend(utf16(description));
    entry.extend(path);
    entry
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// `HD(1,GPT,…)/\EFI\dead\shimx64.efi`.
fn partition_that_is_gone() -> Vec<u8> {
    let mut hard_drive = 1_u32.to_le_bytes().to_vec();
    hard_drive.extend(2048_u64.to_le_bytes());
    hard_drive.extend(204_800_u64.to_le_bytes());
    hard_drive.extend(GONE.to_bytes());
    // A GPT, and the partition's GUID as its signature.
    hard_drive.extend([2, 2]);
    let file = utf16("\\EFI\\dead\\shimx64.efi");
    [node(4, 1, &hard_drive), node(4, 4, &file), END.to_vec()].concat()
}

/// `PciRoot(0x0)/Pci(0x1E,0x0)/NVMe(…)`.
fn disk_that_is_gone() -> Vec<u8> {
    let mut root = 0x0a03_41d0_u32.to_le_bytes().to_vec();
    root.extend(0_u32.to_le_bytes());
    let mut namespace = 1_u32.to_le_bytes().to_vec();
    namespace.extend(0_u64.to_le_bytes());
    [node(2, 1, &root), node(1, 1, &[0, 0x1e]), node(3, 0x17, &namespace), END.to_vec()].concat()
}

const END: [u8; 4] = [0x7f, 0xff, 4, 0];

fn node(kind: u8, subkind: u8, content: &[u8]) -> Vec<u8> {
    let mut node = [kind, subkind].to_vec();
    node.extend((content.len() as u16 + 4).to_le_bytes());
    node.extend(content);
    node
}
