//! Lines for whoever watches, and keys from whoever presses them. Both are best effort: a
//! console that fails, blocks nothing and ends nothing.

use core::fmt::{Arguments, Write};

use loader::line::Line;
use uefi_raw::Status;
use uefi_raw::protocol::console::InputKey;

use super::table;

/// Keys read without a pause, at most: a held key fills the firmware's buffer.
const KEYS_MAX: usize = 64;

/// Writes one line. What goes wrong with it is nobody's to know.
pub fn log(text: Arguments) {
    let mut line = Line::new();
    // A line never fails; an argument's own formatting might, and then the line is shorter.
    let _ = write!(line, "bascule: {text}");
    let Some(system) = table::system() else {
        return;
    };
    if system.stdout.is_null() {
        return;
    }
    // SAFETY: the firmware's console, not null, takes a string that ends with a NUL. Its status
    // is dropped on purpose: there is no second console to complain on.
    let _ = unsafe { ((*system.stdout).output_string)(system.stdout, line.finish().as_ptr()) };
}

/// Writes one formatted line on the console, best effort.
macro_rules! say {
    ($($argument:tt)*) => { $crate::firmware::console::log(format_args!($($argument)*)) };
}
pub(crate) use say;

/// A key that is waiting, as a character; 0 for one without a character.
pub fn key() -> Option<u16> {
    let system = table::system()?;
    if system.stdin.is_null() {
        return None;
    }
    let mut key = InputKey::default();
    // SAFETY: the firmware's keyboard, not null; `key` is a place for one key.
    let status = unsafe { ((*system.stdin).read_key_stroke)(system.stdin, &mut key) };
    (status == Status::SUCCESS).then_some(key.unicode_char)
}

/// Whether `wanted`, a lower case letter, is among the keys that wait, or comes in `wait_ms`.
pub fn pressed(wanted: u8, wait_ms: usize) -> bool {
    const STEP_MS: usize = 10;
    for step in 0..=wait_ms / STEP_MS {
        for _ in 0..KEYS_MAX {
            match key() {
                Some(character) if lower(character) == Some(wanted) => return true,
                Some(_) => {}
                None => break,
            }
        }
        if step < wait_ms / STEP_MS {
            pause_ms(STEP_MS);
        }
    }
    false
}

/// What the first key means that means anything, waited for until `wait_ms` have passed. Other keys,
/// however many come, take none of that time.
pub fn ask<T>(wait_ms: usize, meaning: impl Fn(u8) -> Option<T>) -> Option<T> {
    const STEP_MS: usize = 20;
    for _ in 0..wait_ms / STEP_MS {
        for _ in 0..KEYS_MAX {
            let Some(character) = key() else { break };
            if let Some(meant) = lower(character).and_then(&meaning) {
                return Some(meant);
            }
        }
        pause_ms(STEP_MS);
    }
    None
}

/// Forgets the keys that wait.
pub fn forget_keys() {
    for _ in 0..KEYS_MAX {
        if key().is_none() {
            return;
        }
    }
}

fn lower(character: u16) -> Option<u8> {
    u8::try_from(character).ok().map(|byte| byte.to_ascii_lowercase())
}

/// Does nothing for so many milliseconds.
pub fn pause_ms(ms: usize) {
    if let Some(boot) = table::boot() {
        // SAFETY: no pointer goes in. The specification knows no failure.
        let _ = unsafe { (boot.stall)(ms * 1000) };
    }
}
