//! The OEM strings of the SMBIOS table, which a kernel's stub would append to its command line.
//!
//! A structure is: type u8, length u8 (of the formatted part), handle u16, formatted part, then
//! strings, each with a NUL, then one more NUL. Without strings two NULs follow.

/// Where OEM strings are.
const OEM_STRINGS: u8 = 11;
const END_OF_TABLE: u8 = 127;
const HEAD_BYTES: usize = 4;
const BLANK: u8 = b' ';

/// Bytes of a 32-bit entry point.
pub const ENTRY_32_BYTES: usize = 31;
/// Bytes of a 64-bit entry point.
pub const ENTRY_64_BYTES: usize = 24;
/// No table is longer: 64 KiB in the old format, and real ones of the new are not longer. Its
/// entry point holds a bound, not a length, so this keeps a wild one from leading anywhere.
const TABLE_BYTES_MAX: u32 = 1024 * 1024;

/// Where a table lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Physical address; never 0.
    pub address: u64,
    /// Bytes; never 0.
    pub length: usize,
}

/// The table that a 32-bit entry point (`_SM_`) points to.
pub fn place_32(point: &[u8; ENTRY_32_BYTES]) -> Option<Place> {
    let (anchor, _) = point.split_first_chunk::<4>()?;
    let length = point.get(0x16..)?.first_chunk::<2>()?;
    let address = point.get(0x18..)?.first_chunk::<4>()?;
    place(
        anchor == b"_SM_",
        u64::from(u32::from_le_bytes(*address)),
        u32::from(u16::from_le_bytes(*length)),
    )
}

/// The table that a 64-bit entry point (`_SM3_`) points to.
pub fn place_64(point: &[u8; ENTRY_64_BYTES]) -> Option<Place> {
    let (anchor, _) = point.split_first_chunk::<5>()?;
    let length = point.get(0x0c..)?.first_chunk::<4>()?;
    let address = point.get(0x10..)?.first_chunk::<8>()?;
    place(anchor == b"_SM3_", u64::from_le_bytes(*address), u32::from_le_bytes(*length))
}

fn place(ours: bool, address: u64, length: u32) -> Option<Place> {
    let length = usize::try_from(length.min(TABLE_BYTES_MAX)).ok()?;
    (ours && address != 0 && length != 0).then_some(Place { address, length })
}

/// Overwrites each string of each OEM strings structure in `table` with spaces.
///
/// All of them, not only those a stub is known to read: the loader outlives today's stubs. Keeps
/// the table's shape and stops at the first byte that is no structure. Returns how many strings
/// were blanked.
pub fn blank_oem_strings(table: &mut [u8]) -> usize {
    let mut blanked = 0;
    let mut rest = table;
    while let Some((kind, strings_at)) = head(rest) {
        if kind == END_OF_TABLE {
            break;
        }
        let Some(strings) = rest.get_mut(strings_at..) else {
            break;
        };
        let Some(length) = strings_length(strings) else {
            break;
        };
        let (ours, after) = strings.split_at_mut(length);
        if kind == OEM_STRINGS {
            blanked += blank(ours);
        }
        rest = after;
    }
    blanked
}

/// Type and length of the formatted part.
fn head(bytes: &[u8]) -> Option<(u8, usize)> {
    let &[kind, length, ..] = bytes.first_chunk::<HEAD_BYTES>()?;
    (usize::from(length) >= HEAD_BYTES).then_some((kind, usize::from(length)))
}

/// Bytes up to and with the two NULs that end the strings.
fn strings_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == [0, 0]).map(|at| at + 2)
}

fn blank(strings: &mut [u8]) -> usize {
    let mut count = 0;
    for string in strings.split_mut(|&byte| byte == 0).filter(|string| !string.is_empty()) {
        string.fill(BLANK);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn structure(kind: u8, formatted: &[u8], strings: &[u8]) -> Vec<u8> {
        let length = u8::try_from(HEAD_BYTES + formatted.len()).expect("a short structure");
        [&[kind, length, 1, 0], formatted, strings].concat()
    }

    fn table(oem: &[u8]) -> Vec<u8> {
        [
            structure(1, &[1, 2], b"maker\0model\0\0"),
            structure(OEM_STRINGS, &[2], oem),
            structure(32, &[0; 6], b"\0\0"),
            structure(OEM_STRINGS, &[1], b"last\0\0"),
            structure(END_OF_TABLE, &[], b"\0\0"),
        ]
        .concat()
    }

    #[test]
    fn only_oem_strings_are_blanked_and_the_shape_stays() {
        let mut bytes = table(b"io.systemd.stub.kernel-cmdline-extra=x\0y\0\0");
        let count = blank_oem_strings(&mut bytes);
        assert_eq!(count, 3);
        let mut wanted = table(&[&[b' '; 38][..], b"\0 \0\0"].concat());
        let last = wanted.len() - 4 - 2 - 6;
        wanted[last..last + 4].fill(b' ');
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn entry_points_say_where_the_table_is() {
        let mut old = [0; ENTRY_32_BYTES];
        old[..4].copy_from_slice(b"_SM_");
        old[0x16..0x1c].copy_from_slice(&[0x34, 0x12, 1, 2, 3, 4]);
        assert_eq!(place_32(&old), Some(Place { address: 0x0403_0201, length: 0x1234 }));
        let mut new = [0; ENTRY_64_BYTES];
        new[..5].copy_from_slice(b"_SM3_");
        new[0x0c..0x11].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 9]);
        assert_eq!(place_64(&new), Some(Place { address: 9, length: 1 << 20 }));
        assert_eq!(place_64(&[0; ENTRY_64_BYTES]), None);
        old[0] = b'x';
        assert_eq!(place_32(&old), None);
    }

    #[test]
    fn a_structure_without_strings_is_skipped() {
        let mut bytes = table(b"\0\0");
        assert_eq!(blank_oem_strings(&mut bytes), 1);
    }

    #[test]
    fn what_follows_the_end_is_left() {
        let mut bytes = table(b"x\0\0");
        bytes.extend(structure(OEM_STRINGS, &[1], b"beyond\0\0"));
        blank_oem_strings(&mut bytes);
        assert!(bytes.ends_with(b"beyond\0\0"));
    }

    #[test]
    fn a_cut_table_is_never_read_beyond_its_end() {
        let whole = table(b"one\0two\0\0");
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            blank_oem_strings(&mut cut);
            assert_eq!(cut.len(), length);
        }
    }

    #[test]
    fn a_structure_shorter_than_its_head_ends_the_walk() {
        let mut bytes = [structure(1, &[], b"\0\0"), [11, 3, 0, 0, b'x', 0, 0].to_vec()].concat();
        let before = bytes.clone();
        assert_eq!(blank_oem_strings(&mut bytes), 0);
        assert_eq!(bytes, before);
    }
}
