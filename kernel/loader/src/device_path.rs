//! UEFI device paths as bytes: the disk above a partition, and the name we give a kernel image.
//!
//! A path is a row of nodes: type u8, subtype u8, length u16 (of the whole node), data. Its last
//! node is 7f ff 04 00.

use alloc::vec::Vec;

const HEAD_BYTES: usize = 4;
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const END: u8 = 0x7f;
const END_ENTIRE: [u8; HEAD_BYTES] = [END, 0xff, HEAD_BYTES as u8, 0];
const HARD_DRIVE_BYTES: u16 = 42;
const FORMAT_GPT: u8 = 2;
const SIGNATURE_GUID: u8 = 2;
/// Longest name in a file node; enough for a release, and the node's length stays small.
const NAME_CHARS_MAX: usize = 64;

/// A partition as a hard drive node names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number of its table entry, from 1.
    pub number: u32,
    /// First sector, in the disk's logical sectors.
    pub first_lba: u64,
    /// Length, in the disk's logical sectors.
    pub sectors: u64,
    /// Unique GUID, in the bytes of its table entry.
    pub guid: [u8; 16],
}

/// The path of the disk that holds the partition of `path`: all nodes before the last hard drive
/// node, and an end. `None` where there is no such node, or the path is not one.
pub fn disk_of(path: &[u8]) -> Option<Vec<u8>> {
    let mut last = None;
    let mut at = 0;
    loop {
        let rest = path.get(at..)?;
        let (kind, subtype, length) = head(rest)?;
        if kind == END {
            break;
        }
        if (kind, subtype) == (MEDIA, HARD_DRIVE) {
            last = Some(at);
        }
        at = at.checked_add(length)?;
    }
    let mut disk = path.get(..last?)?.to_vec();
    disk.extend_from_slice(&END_ENTIRE);
    Some(disk)
}

/// The path of a file `name` in `partition` of the disk at `disk`.
///
/// No file system need be there: the stub reads its partition and its name from this path, and
/// finds no add-ons or credentials beside a file that is in no folder. Characters other than
/// letters, digits, `.`, `-` and `_` become `_`.
pub fn file_in(disk: &[u8], partition: Option<&Partition>, name: &str) -> Vec<u8> {
    let mut path = without_end(disk).to_vec();
    if let Some(partition) = partition {
        path.extend_from_slice(&[MEDIA, HARD_DRIVE]);
        path.extend_from_slice(&HARD_DRIVE_BYTES.to_le_bytes());
        path.extend_from_slice(&partition.number.to_le_bytes());
        path.extend_from_slice(&partition.first_lba.to_le_bytes());
        path.extend_from_slice(&partition.sectors.to_le_bytes());
        path.extend_from_slice(&partition.guid);
        path.extend_from_slice(&[FORMAT_GPT, SIGNATURE_GUID]);
    }
    let text: Vec<u8> = name.bytes().take(NAME_CHARS_MAX).map(plain).collect();
    // The backslash before the name and the NUL after it are two characters of two bytes.
    let length = HEAD_BYTES + 2 * (text.len() + 2);
    path.extend_from_slice(&[MEDIA, FILE_PATH]);
    path.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    for byte in core::iter::once(b'\\').chain(text).chain(core::iter::once(0)) {
        path.extend_from_slice(&u16::from(byte).to_le_bytes());
    }
    path.extend_from_slice(&END_ENTIRE);
    path
}

fn plain(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => byte,
        _ => b'_',
    }
}

fn without_end(path: &[u8]) -> &[u8] {
    path.strip_suffix(&END_ENTIRE).unwrap_or(path)
}

/// Type, subtype and length of the node that begins `bytes`.
fn head(bytes: &[u8]) -> Option<(u8, u8, usize)> {
    let &[kind, subtype, low, high] = bytes.first_chunk::<HEAD_BYTES>()?;
    let length = usize::from(u16::from_le_bytes([low, high]));
    (length >= HEAD_BYTES).then_some((kind, subtype, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCI: [u8; 6] = [1, 1, 6, 0, 3, 0];

    fn esp_path() -> Vec<u8> {
        let esp = Partition { number: 1, first_lba: 2048, sectors: 4096, guid: [7; 16] };
        let disk = [&PCI[..], &END_ENTIRE].concat();
        file_in(&disk, Some(&esp), "loader.efi")
    }

    #[test]
    fn the_disk_is_what_comes_before_the_partition() {
        assert_eq!(disk_of(&esp_path()), Some([&PCI[..], &END_ENTIRE].concat()));
    }

    #[test]
    fn a_whole_disk_has_no_disk_above_it() {
        assert_eq!(disk_of(&[&PCI[..], &END_ENTIRE].concat()), None);
    }

    #[test]
    fn a_node_shorter_than_its_head_is_no_path() {
        assert_eq!(disk_of(&[4, 1, 3, 0, 0]), None);
        assert_eq!(disk_of(&[4, 1, 0, 0]), None);
    }

    #[test]
    fn a_path_without_end_is_no_path() {
        let whole = esp_path();
        for length in 0..whole.len() - 1 {
            assert_eq!(disk_of(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_partition_has_the_bytes_that_uefi_says() {
        let partition = Partition { number: 3, first_lba: 0x0102, sectors: 5, guid: [9; 16] };
        let path = file_in(&END_ENTIRE, Some(&partition), "a");
        let node = [
            &[4, 1, 42, 0, 3, 0, 0, 0][..],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[9; 16],
            &[2, 2],
            &[4, 4, 10, 0, b'\\', 0, b'a', 0, 0, 0],
            &END_ENTIRE,
        ];
        assert_eq!(path, node.concat());
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        let path = file_in(&END_ENTIRE, None, r"..\EFI/x y");
        let text: Vec<u8> = path[4..].chunks(2).map(|pair| pair[0]).collect();
        assert_eq!(&text[..11], br"\.._EFI_x_y");
    }

    #[test]
    fn a_long_name_is_cut() {
        let path = file_in(&END_ENTIRE, None, &"n".repeat(70_000));
        assert_eq!(path.len(), 4 + 2 * (NAME_CHARS_MAX + 2) + 4);
    }
}
