//! GUIDs as the firmware stores them: the first three fields little-endian (UEFI 2.10, appendix A).

use core::fmt;

/// A GUID, in its 16 bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

/// Order in which the bytes on disk appear in the text form.
const TEXT_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// No GUID: an unused partition entry.
    pub const ZERO: Self = Self([0; 16]);

    /// Reads the text form at compile time or run time; hyphens where they belong are required.
    #[must_use]
    pub const fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut out = [0_u8; 16];
        let (mut at, mut byte) = (0, 0);
        while byte < 16 {
            if matches!(at, 8 | 13 | 18 | 23) {
                if text[at] != b'-' {
                    return None;
                }
                at += 1;
            }
            let (Some(high), Some(low)) = (hex(text[at]), hex(text[at + 1])) else {
                return None;
            };
            out[TEXT_ORDER[byte]] = high << 4 | low;
            at += 2;
            byte += 1;
        }
        Some(Self(out))
    }

    /// A GUID that is a constant of this project; anything else does not compile.
    const fn constant(text: &str) -> Self {
        match Self::parse(text) {
            Some(guid) => guid,
            None => panic!("not a GUID"),
        }
    }
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, index) in TEXT_ORDER.into_iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[index])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// EFI system partition (UEFI 2.10, table 5.7).
pub const ESP: Guid = Guid::constant("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// Bascule boot record partition.
pub const RECORD: Guid = Guid::constant("7a27bb99-8d0c-4f00-952a-90996b2ff117");
/// Bascule slot A.
pub const SLOT_A: Guid = Guid::constant("5619a5b9-1493-4881-bc8b-bfedb3349efb");
/// Bascule slot B.
pub const SLOT_B: Guid = Guid::constant("46509b06-322b-427b-95eb-77ff94321ed0");
/// Bascule state partition.
pub const STATE: Guid = Guid::constant("6bb7ce69-2753-41c2-b99f-dc5de9e2b28d");
/// Vendor GUID of Bascule's EFI variables.
pub const VENDOR: Guid = Guid::constant("a166b9c7-8791-47a2-bf80-c0ad67737ea9");

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_and_bytes_agree_with_the_standard() {
        assert_eq!(ESP.0[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
        assert_eq!(ESP.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        for bad in
            ["", "c12a7328-f81f-11d2-ba4b-00a0c93ec93", "c12a7328+f81f-11d2-ba4b-00a0c93ec93b"]
        {
            assert_eq!(Guid::parse(bad), None);
        }
    }
}
