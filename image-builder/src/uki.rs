//! A unified kernel image: systemd's stub with our sections appended.
//!
//! Only the section table and four numbers of the stub's headers change. Sections are put behind
//! the stub's last one, in memory and in the file.

use anyhow::{Context, Result, ensure};

use crate::pe::{self, Headers, SECTION_HEADER, align, put};

/// What goes into one.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// systemd's stub for this architecture.
    pub stub: &'a [u8],
    /// Text of os-release.
    pub os_release: &'a str,
    /// Kernel command line.
    pub command_line: &'a str,
    /// Kernel release, as `uname -r` says.
    pub kernel_release: &'a str,
    /// Kernel.
    pub kernel: &'a [u8],
    /// Initrd.
    pub initrd: &'a [u8],
}

const READ: u32 = 0x4000_0000;
const CODE: u32 = 0x20;
const DATA: u32 = 0x40;

/// Assembles the image. The same parts give the same bytes.
///
/// # Errors
/// The stub is not a 64-bit PE program, or has no room for more section headers.
pub fn assemble(parts: &Parts) -> Result<Vec<u8>> {
    let mut image = parts.stub.to_vec();
    let layout = Headers::of(&image).context("the stub")?;
    let mut number = layout.sections;
    let mut address = layout.end_of_sections(&image)?;
    let os_release = parts.os_release.as_bytes();
    for (name, content, kind) in [
        (b".osrel\0\0", os_release, DATA),
        (b".cmdline", parts.command_line.as_bytes(), DATA),
        (b".uname\0\0", parts.kernel_release.as_bytes(), DATA),
        (b".initrd\0", parts.initrd, DATA),
        (b".linux\0\0", parts.kernel, CODE),
    ] {
        let header_at = layout.table_at + usize::from(number) * SECTION_HEADER;
        ensure!(
            header_at + SECTION_HEADER <= layout.first_content,
            "the stub has no room for section {number}"
        );
        pad(&mut image, layout.file_align);
        let place = u32::try_from(image.len()).context("image beyond 4 GiB")?;
        let size = u32::try_from(content.len()).context("section beyond 4 GiB")?;
        image.extend_from_slice(content);
        pad(&mut image, layout.file_align);
        let raw = u32::try_from(image.len()).context("image beyond 4 GiB")? - place;
        put(&mut image, header_at, name)?;
        for (offset, value) in [(8, size), (12, address), (16, raw), (20, place), (36, kind | READ)]
        {
            put(&mut image, header_at + offset, &value.to_le_bytes())?;
        }
        for offset in [24, 28, 32] {
            put(&mut image, header_at + offset, &0_u32.to_le_bytes())?;
        }
        let end = address.checked_add(size).context("image beyond 4 GiB")?;
        address = align(end, layout.memory_align)?;
        number = number.checked_add(1).context("too many sections")?;
    }
    put(&mut image, layout.coff_at + 2, &number.to_le_bytes())?;
    put(&mut image, layout.optional_at + 56, &address.to_le_bytes())?;
    pe::clear_checksum(&mut image, &layout)?;
    Ok(image)
}

fn pad(image: &mut Vec<u8>, to: usize) {
    image.resize(image.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a 64-bit program with one section of 100 bytes and room for more.
    fn stub() -> Vec<u8> {
        let mut bytes = vec![0; 0x600];
        let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
        put(0, b"MZ");
        put(0x3c, &0x40_u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x46, &1_u16.to_le_bytes());
        put(0x54, &240_u16.to_le_bytes());
        put(0x58, &0x20b_u16.to_le_bytes());
        put(0x58 + 32, &0x1000_u32.to_le_bytes());
        put(0x58 + 36, &0x200_u32.to_le_bytes());
        put(0x58 + 60, &0x400_u32.to_le_bytes());
        let section = 0x58 + 240;
        put(section, b".text");
        for (at, value) in [(8, 100_u32), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            put(section + at, &value.to_le_bytes());
        }
        bytes
    }

    fn assembled(stub: &[u8]) -> Result<Vec<u8>> {
        assemble(&Parts {
            stub,
            os_release: "ID=bascule\n",
            command_line: "gpt",
            kernel_release: "6.12",
            kernel: &[7; 5000],
            initrd: &[8; 700],
        })
    }

    #[test]
    fn sections_lie_behind_the_stub_and_do_not_overlap() {
        let image = assembled(&stub()).unwrap();
        let layout = Headers::of(&image).unwrap();
        assert_eq!(layout.sections, 6);
        let mut end = (0x1000 + 100, 0x600);
        for number in 1..6 {
            let at = layout.table_at + number * SECTION_HEADER;
            let field = |offset| pe::word(&image, at + offset).unwrap();
            let (size, address, raw, place) = (field(8), field(12), field(16), field(20));
            assert!(address >= end.0 && address.is_multiple_of(0x1000), "{number}");
            assert!(place >= end.1 && place.is_multiple_of(0x200) && raw >= size, "{number}");
            end = (address + size, place + raw);
        }
        assert_eq!(
            pe::word(&image, layout.optional_at + 56).unwrap(),
            end.0.next_multiple_of(0x1000)
        );
        assert_eq!(image.len(), end.1 as usize);
        let kernel = layout.table_at + 5 * SECTION_HEADER;
        assert_eq!(&image[kernel..kernel + 6], b".linux");
        let place = pe::word(&image, kernel + 20).unwrap() as usize;
        assert_eq!(image[place..place + 5000], [7; 5000]);
    }

    #[test]
    fn a_stub_without_room_or_sense_is_refused() {
        let with = |at: usize, bytes: &[u8]| {
            let mut stub = stub();
            stub[at..at + bytes.len()].copy_from_slice(bytes);
            stub
        };
        let mut early = with(0x3c, &[0x20, 0, 0, 0]);
        early[0x20..0x24].copy_from_slice(b"PE\0\0");
        for (stub, reason) in [
            (early, "no PE program"),
            (with(0, b"ZM"), "no PE program"),
            (with(0x3c, &[0xff; 4]), "no PE program"),
            (with(0x54, &[100, 0]), "overlap"),
            (with(0x58, &[0x0b, 1]), "no 64-bit program"),
            (with(0x58 + 36, &[0, 0, 0, 0x40]), "alignments"),
            (with(0x58 + 60, &[0xa0, 1]), "no room"),
            (with(0x46, &[0xff; 2]), "inside its headers"),
            (stub()[..0x50].to_vec(), "inside its headers"),
        ] {
            let error = format!("{:#}", assembled(&stub).unwrap_err());
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
