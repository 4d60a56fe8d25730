//! Programs as UEFI firmware loads them (PE32+): their headers, sections and signatures.
//!
//! Only what is needed here is read, and nothing is believed: every offset is looked up in bounds.

use anyhow::{Context, Result, bail, ensure};

/// Size of an entry of the section table in bytes.
pub const SECTION_HEADER: usize = 40;
/// Size of the header of DOS in bytes; the real ones come after it.
const DOS_HEADER: usize = 0x40;
/// Size of a 64-bit program's optional header in bytes, without its directory.
const OPTIONAL_MIN: usize = 112;
/// Largest alignment that is believed, in bytes; real programs have 512 and 4096.
const ALIGN_MAX: u32 = 1 << 16;
/// The directory entry of the certificate table, counted from the start of the optional header:
/// the fifth of eight bytes each. Unlike the others it holds a place in the file.
const CERTIFICATES: usize = OPTIONAL_MIN + 4 * 8;
/// Length, revision and type before each certificate.
const CERTIFICATE_HEADER: usize = 8;
/// Certificates begin at multiples of this, counted from the table's start.
const CERTIFICATE_ALIGN: usize = 8;

/// Where things are in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// COFF header.
    pub coff_at: usize,
    /// Optional header.
    pub optional_at: usize,
    /// Section table.
    pub table_at: usize,
    /// Number of sections.
    pub sections: u16,
    /// Alignment of sections in memory in bytes, a power of two.
    pub memory_align: u32,
    /// Alignment of sections in the file in bytes, a power of two.
    pub file_align: usize,
    /// Where the headers must have ended: the first content of a section.
    pub first_content: usize,
}

impl Headers {
    /// Reads the headers of `image`.
    ///
    /// # Errors
    /// It is no 64-bit program, or its headers make no sense.
    pub fn of(image: &[u8]) -> Result<Self> {
        ensure!(image.get(..2) == Some(b"MZ"), "no PE program");
        let pe_at = usize::try_from(word(image, 0x3c)?)?;
        let is_pe = pe_at >= DOS_HEADER && image.get(pe_at..pe_at + 4) == Some(b"PE\0\0");
        ensure!(is_pe, "no PE program");
        let coff_at = pe_at + 4;
        let optional_at = coff_at + 20;
        let optional_size = usize::from(half(image, coff_at + 16)?);
        ensure!(optional_size >= OPTIONAL_MIN, "the headers overlap");
        let table_at = optional_at + optional_size;
        let sections = half(image, coff_at + 2)?;
        ensure!(half(image, optional_at)? == 0x20b, "no 64-bit program");
        let memory_align = word(image, optional_at + 32)?;
        let file_align = usize::try_from(word(image, optional_at + 36)?)?;
        let is_sound = memory_align.is_power_of_two() && file_align.is_power_of_two();
        if !is_sound || memory_align > ALIGN_MAX || file_align > ALIGN_MAX as usize {
            bail!("alignments are no powers of two up to {ALIGN_MAX}");
        }
        let mut first_content = usize::try_from(word(image, optional_at + 60)?)?;
        for number in 0..usize::from(sections) {
            let place = usize::try_from(word(image, table_at + number * SECTION_HEADER + 20)?)?;
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

    /// First address behind all sections, aligned.
    ///
    /// # Errors
    /// A section reaches beyond 4 GiB.
    pub fn end_of_sections(&self, image: &[u8]) -> Result<u32> {
        let mut end = 0;
        for number in 0..usize::from(self.sections) {
            let header = self.table_at + number * SECTION_HEADER;
            let (size, address) = (word(image, header + 8)?, word(image, header + 12)?);
            end = end.max(address.checked_add(size).context("section beyond 4 GiB")?);
        }
        align(end, self.memory_align)
    }

    /// Where the certificate table's directory entry is.
    fn certificates_at(&self, image: &[u8]) -> Result<usize> {
        let at = self.optional_at + CERTIFICATES;
        let entries = word(image, self.optional_at + 108)?;
        ensure!(entries > 4 && at + 8 <= self.table_at, "the program has no room for signatures");
        Ok(at)
    }
}

/// Content of the section `name` of `image`, without the padding that the file has behind it.
///
/// # Errors
/// `image` is no program, has no such section, or the section lies outside the file.
pub fn section<'a>(image: &'a [u8], name: &str) -> Result<&'a [u8]> {
    let headers = Headers::of(image)?;
    for number in 0..usize::from(headers.sections) {
        let at = headers.table_at + number * SECTION_HEADER;
        let field = image.get(at..at + 8).context("the program ends inside its headers")?;
        let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        if field.get(..length) == Some(name.as_bytes()) {
            let size = word(image, at + 8)?.min(word(image, at + 16)?);
            let place = usize::try_from(word(image, at + 20)?)?;
            return image
                .get(place..place + usize::try_from(size)?)
                .with_context(|| format!("section {name} lies outside the program"));
        }
    }
    bail!("the program has no section {name}")
}

/// The certificate table of `image`: where it is, and each certificate with its header. Without a
/// signature it is empty and would be at the end.
///
/// # Errors
/// `image` is no program, or its table lies outside the file or is malformed.
pub fn certificates(image: &[u8]) -> Result<(usize, Vec<&[u8]>)> {
    let entry = Headers::of(image)?.certificates_at(image)?;
    let place = usize::try_from(word(image, entry)?)?;
    let size = usize::try_from(word(image, entry + 4)?)?;
    if size == 0 {
        return Ok((image.len(), Vec::new()));
    }
    let mut rest =
        image.get(place..place + size).context("the certificate table lies outside the program")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = usize::try_from(word(rest, 0).context("certificate table")?)?;
        let one = rest.get(..length).filter(|_| length > CERTIFICATE_HEADER);
        found.push(one.context("a certificate of no sensible length")?);
        rest = rest.get(length.next_multiple_of(CERTIFICATE_ALIGN)..).unwrap_or_default();
    }
    Ok((place, found))
}

/// Appends the certificates of `other`, the same program signed by somebody else, to those of
/// `image`. A signature covers neither the table nor its directory entry, so all stay valid.
///
/// # Errors
/// One of the two is not signed, or they are not the same program.
pub fn add_certificates(image: &mut Vec<u8>, other: &[u8]) -> Result<()> {
    let (place, own) = certificates(image)?;
    let (other_place, more) = certificates(other)?;
    ensure!(!own.is_empty() && !more.is_empty(), "a program without a signature");
    let headers = Headers::of(image)?;
    ensure!(
        place == other_place && unsigned(image, &headers)? == unsigned(other, &headers)?,
        "the signatures are not of the same program"
    );
    let pad = |image: &mut Vec<u8>| {
        image.resize(place + (image.len() - place).next_multiple_of(CERTIFICATE_ALIGN), 0);
    };
    pad(image);
    for one in more {
        image.extend_from_slice(one);
        pad(image);
    }
    let size = u32::try_from(image.len() - place).context("certificates beyond 4 GiB")?;
    let entry = headers.certificates_at(image)?;
    put(image, entry + 4, &size.to_le_bytes())?;
    clear_checksum(image, &headers)
}

/// What a signature covers: the bytes before the table, without the checksum and the directory
/// entry.
fn unsigned(image: &[u8], headers: &Headers) -> Result<Vec<u8>> {
    let (place, _) = certificates(image)?;
    let mut bytes = image.get(..place).context("the table lies outside the program")?.to_vec();
    clear_checksum(&mut bytes, headers)?;
    put(&mut bytes, headers.certificates_at(image)?, &[0; 8])?;
    Ok(bytes)
}

/// Writes no checksum: firmware does not look at it, and a signature leaves it out.
///
/// # Errors
/// `image` ends inside its headers.
pub fn clear_checksum(image: &mut [u8], headers: &Headers) -> Result<()> {
    put(image, headers.optional_at + 64, &0_u32.to_le_bytes())
}

/// The next multiple of `to` at or behind `value`.
///
/// # Errors
/// It is beyond 4 GiB.
pub fn align(value: u32, to: u32) -> Result<u32> {
    value.checked_next_multiple_of(to).context("image beyond 4 GiB")
}

/// Overwrites bytes of the headers.
///
/// # Errors
/// They are not inside `image`.
pub fn put(image: &mut [u8], at: usize, bytes: &[u8]) -> Result<()> {
    let place =
        image.get_mut(at..at + bytes.len()).context("the program ends inside its headers")?;
    place.copy_from_slice(bytes);
    Ok(())
}

fn half(image: &[u8], at: usize) -> Result<u16> {
    let bytes = image.get(at..at + 2).context("the program ends inside its headers")?;
    Ok(u16::from_le_bytes(bytes.try_into()?))
}

/// The little-endian number at `at`.
///
/// # Errors
/// It is not inside `image`.
pub fn word(image: &[u8], at: usize) -> Result<u32> {
    let bytes = image.get(at..at + 4).context("the program ends inside its headers")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: usize = 0x400;

    /// A program with one section of 100 bytes, and `certificates` behind it.
    fn program(certificates: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; PLACE];
        let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
        let section = 0x58 + 240;
        put(0, b"MZ");
        put(0x40, b"PE\0\0");
        put(section, b".osrel\0\0");
        put(0x200, &[7; 100]);
        for (at, value) in [(0x46, 1_u16), (0x54, 240), (0x58, 0x20b)] {
            put(at, &value.to_le_bytes());
        }
        let table: Vec<u8> = certificates.iter().flat_map(|it| certificate(it)).collect();
        let at = if table.is_empty() { 0 } else { PLACE as u32 };
        for (at, value) in [
            (0x3c, 0x40),
            (0x58 + 32, 0x1000_u32),
            (0x58 + 36, 0x200),
            (0x58 + 60, 0x200),
            (0x58 + 64, certificates.len() as u32),
            (0x58 + 108, 16),
            (0x58 + 144, at),
            (0x58 + 148, table.len() as u32),
            (section + 8, 100),
            (section + 12, 0x1000),
            (section + 16, 0x200),
            (section + 20, 0x200),
        ] {
            put(at, &value.to_le_bytes());
        }
        bytes.extend(table);
        bytes
    }

    fn certificate(content: &[u8]) -> Vec<u8> {
        let mut bytes = (content.len() as u32 + 8).to_le_bytes().to_vec();
        bytes.extend([0, 2, 2, 0]);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_section_is_found_by_name_without_its_padding() {
        assert_eq!(section(&program(&[]), ".osrel").unwrap(), [7; 100]);
        assert!(section(&program(&[]), ".osre").is_err());
        let mut far = program(&[]);
        put(&mut far, 0x58 + 240 + 20, &[0, 4, 0, 0]).unwrap();
        let error = section(&far, ".osrel").unwrap_err().to_string();
        assert!(error.contains("outside"), "{error}");
    }

    #[test]
    fn signatures_of_one_program_are_put_together() {
        let mut one = program(&[b"first"]);
        add_certificates(&mut one, &program(&[b"second signature"])).unwrap();
        let (place, found) = certificates(&one).unwrap();
        assert_eq!(place, PLACE);
        let contents: Vec<&[u8]> = found.iter().map(|it| &it[8..]).collect();
        assert_eq!(contents, [&b"first"[..], b"second signature"]);
        assert_eq!(certificates(&program(&[])).unwrap(), (PLACE, vec![]));
    }

    #[test]
    fn signatures_of_different_programs_are_not() {
        let mut altered = program(&[b"second"]);
        altered[0x210] = 8;
        let mut long = program(&[b"second"]);
        put(&mut long, PLACE, &[0xff; 4]).unwrap();
        for (other, reason) in [
            (altered, "same program"),
            (program(&[]), "without a signature"),
            (long, "sensible length"),
            (program(&[b"second"])[..PLACE].to_vec(), "outside"),
        ] {
            let error = add_certificates(&mut program(&[b"first"]), &other).unwrap_err();
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
    }
}
