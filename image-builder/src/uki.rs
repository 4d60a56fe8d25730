//! A unified kernel image: systemd's stub with our sections appended.
//!
//! Only the section table and four numbers of the stub's headers change. Sections are put behind
//! the stub's last one, in memory and in the file.

use anyhow::{Context, Result, bail, ensure};

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

const HEADER_LENGTH: usize = 40;
/// Largest alignment that is believed, in bytes; real stubs have 512 and 4096.
const ALIGN_MAX: u32 = 1 << 16;
const READ: u32 = 0x4000_0000;
const CODE: u32 = 0x20;
const DATA: u32 = 0x40;

/// Assembles the image. The same parts give the same bytes.
///
/// # Errors
/// The stub is not a 64-bit PE program, or has no room for more section headers.
pub fn assemble(parts: &Parts) -> Result<Vec<u8>> {
    let mut image = parts.stub.to_vec();
    let layout = Layout::of(&image)?;
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
        let header_at = layout.table_at + usize::from(number) * HEADER_LENGTH;
        ensure!(
            header_at + HEADER_LENGTH <= layout.first_content,
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
        number += 1;
    }
    put(&mut image, layout.coff_at + 2, &number.to_le_bytes())?;
    put(&mut image, layout.optional_at + 56, &address.to_le_bytes())?;
    // No checksum: firmware does not look at it, and a signature leaves it out.
    put(&mut image, layout.optional_at + 64, &0_u32.to_le_bytes())?;
    Ok(image)
}

/// What must be known of the stub.
struct Layout {
    coff_at: usize,
    optional_at: usize,
    table_at: usize,
    sections: u16,
    memory_align: u32,
    file_align: usize,
    first_content: usize,
}

impl Layout {
    fn of(image: &[u8]) -> Result<Self> {
        ensure!(image.get(..2) == Some(b"MZ"), "the stub is no PE program");
        let pe_at = usize::try_from(word(image, 0x3c)?)?;
        ensure!(image.get(pe_at..pe_at + 4) == Some(b"PE\0\0"), "the stub is no PE program");
        let coff_at = pe_at + 4;
        let optional_at = coff_at + 20;
        let table_at = optional_at + usize::from(half(image, coff_at + 16)?);
        let sections = half(image, coff_at + 2)?;
        ensure!(half(image, optional_at)? == 0x20b, "the stub is no 64-bit program");
        let memory_align = word(image, optional_at + 32)?;
        let file_align = usize::try_from(word(image, optional_at + 36)?)?;
        let is_sound = memory_align.is_power_of_two() && file_align.is_power_of_two();
        if !is_sound || memory_align > ALIGN_MAX || file_align > ALIGN_MAX as usize {
            bail!("the stub's alignments are no powers of two up to {ALIGN_MAX}");
        }
        let mut first_content = usize::try_from(word(image, optional_at + 60)?)?;
        for number in 0..usize::from(sections) {
            let place = usize::try_from(word(image, table_at + number * HEADER_LENGTH + 20)?)?;
            if place != 0 {
                first_content = first_content.min(place);
            }
        }
        Ok(Self {
            coff_at,
            optional_at,
            table_at,
            sections,
            memory_align,
            file_align,
            first_content,
        })
    }

    /// First address behind all sections.
    fn end_of_sections(&self, image: &[u8]) -> Result<u32> {
        let mut end = 0;
        for number in 0..usize::from(self.sections) {
            let header = self.table_at + number * HEADER_LENGTH;
            let (size, address) = (word(image, header + 8)?, word(image, header + 12)?);
            end = end.max(address.checked_add(size).context("section beyond 4 GiB")?);
        }
        align(end, self.memory_align)
    }
}

fn align(value: u32, to: u32) -> Result<u32> {
    value.checked_next_multiple_of(to).context("image beyond 4 GiB")
}

fn pad(image: &mut Vec<u8>, to: usize) {
    image.resize(image.len().next_multiple_of(to), 0);
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) -> Result<()> {
    let place = image.get_mut(at..at + bytes.len()).context("the stub ends inside its headers")?;
    place.copy_from_slice(bytes);
    Ok(())
}

fn half(image: &[u8], at: usize) -> Result<u16> {
    let bytes = image.get(at..at + 2).context("the stub ends inside its headers")?;
    Ok(u16::from_le_bytes(bytes.try_into()?))
}

fn word(image: &[u8], at: usize) -> Result<u32> {
    let bytes = image.get(at..at + 4).context("the stub ends inside its headers")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
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
        let layout = Layout::of(&image).unwrap();
        assert_eq!(layout.sections, 6);
        let mut end = (0x1000 + 100, 0x600);
        for number in 1..6 {
            let at = layout.table_at + number * HEADER_LENGTH;
            let field = |offset| word(&image, at + offset).unwrap();
            let (size, address, raw, place) = (field(8), field(12), field(16), field(20));
            assert!(address >= end.0 && address.is_multiple_of(0x1000), "{number}");
            assert!(place >= end.1 && place.is_multiple_of(0x200) && raw >= size, "{number}");
            end = (address + size, place + raw);
        }
        assert_eq!(word(&image, layout.optional_at + 56).unwrap(), end.0.next_multiple_of(0x1000));
        assert_eq!(image.len(), end.1 as usize);
        let kernel = layout.table_at + 5 * HEADER_LENGTH;
        assert_eq!(&image[kernel..kernel + 6], b".linux");
        let place = word(&image, kernel + 20).unwrap() as usize;
        assert_eq!(image[place..place + 5000], [7; 5000]);
    }

    #[test]
    fn a_stub_without_room_or_sense_is_refused() {
        let with = |at: usize, bytes: &[u8]| {
            let mut stub = stub();
            stub[at..at + bytes.len()].copy_from_slice(bytes);
            stub
        };
        for (stub, reason) in [
            (with(0, b"ZM"), "no PE program"),
            (with(0x3c, &[0xff; 4]), "no PE program"),
            (with(0x58, &[0x0b, 1]), "no 64-bit program"),
            (with(0x58 + 36, &[0, 0, 0, 0x40]), "alignments"),
            (with(0x58 + 60, &[0xa0, 1]), "no room"),
            (with(0x46, &[0xff; 2]), "inside its headers"),
            (stub()[..0x50].to_vec(), "inside its headers"),
        ] {
            let error = assembled(&stub).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
