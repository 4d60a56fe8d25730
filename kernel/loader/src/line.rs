//! One line of text for the firmware's console, made without an allocation.

use core::fmt::{Result, Write};

/// Longest line, in characters; what is longer is cut.
const CHARS_MAX: usize = 240;
/// CR, LF and NUL.
const END: [u16; 3] = [13, 10, 0];

/// Text as the console takes it: UTF-16 with a line end and a NUL.
pub struct Line {
    text: [u16; CHARS_MAX + END.len()],
    length: usize,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self { text: [0; CHARS_MAX + END.len()], length: 0 }
    }

    /// Ends the line and gives its characters, the NUL last.
    pub fn finish(&mut self) -> &[u16] {
        for (place, end) in self.text.iter_mut().skip(self.length).zip(END) {
            *place = end;
        }
        self.text.get(..self.length + END.len()).unwrap_or(&[0])
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Line {
    /// Never fails. Characters a plain console may not have become `?`.
    fn write_str(&mut self, text: &str) -> Result {
        for character in text.chars() {
            if self.length >= CHARS_MAX {
                break;
            }
            let plain =
                if character.is_ascii() && !character.is_ascii_control() { character } else { '?' };
            if let Some(place) = self.text.get_mut(self.length) {
                *place = u16::try_from(u32::from(plain)).unwrap_or(u16::from(b'?'));
                self.length += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn made(text: &str) -> String {
        let mut line = Line::new();
        line.write_str(text).expect("never fails");
        String::from_utf16(line.finish()).expect("is UTF-16")
    }

    #[test]
    fn a_line_ends_with_its_end() {
        assert_eq!(made("slot a"), "slot a\r\n\0");
        assert_eq!(made(""), "\r\n\0");
    }

    #[test]
    fn a_line_holds_no_control_characters() {
        assert_eq!(made("a\x1b[2J\u{fc}\nb"), "a?[2J??b\r\n\0");
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(made(&"x".repeat(1000)).len(), CHARS_MAX + 3);
    }
}
