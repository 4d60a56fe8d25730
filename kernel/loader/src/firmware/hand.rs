//! The choice by hand: a person holds a key while the machine starts.

use partition_layout::record::Target;
use partition_layout::slot::Slot;

use super::console::{self, say};

/// The key to hold.
const KEY: u8 = b'b';
/// How long the key is looked for, in milliseconds: three repeats of a held key, and nobody
/// notices it.
const LOOK_MS: usize = 100;
/// How long an answer is waited for, in milliseconds, before the rules decide.
const ANSWER_MS: usize = 60_000;

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: the rules decide.
    None,
    /// To start this.
    Start(Target),
    /// To go back to the firmware.
    Firmware,
}

/// Asks, if the key is held. The answers are other keys, so that a key held on answers nothing.
pub fn wish() -> Wish {
    if !console::pressed(KEY, LOOK_MS) {
        return Wish::None;
    }
    // First, so that an answer to the question is never among what is forgotten.
    console::forget_keys();
    say!("start by hand: 1 slot A, 2 slot B, r recovery, f firmware, n as usual");
    let mut left_ms = ANSWER_MS;
    while left_ms > 0 {
        match console::ask(1000) {
            Some(b'1') => return Wish::Start(Target::Slot(Slot::A)),
            Some(b'2') => return Wish::Start(Target::Slot(Slot::B)),
            Some(b'r') => return Wish::Start(Target::Recovery),
            Some(b'f') => return Wish::Firmware,
            Some(b'n') => return Wish::None,
            // A held key repeats faster than the step: it must not keep the question open.
            Some(_) | None => left_ms = left_ms.saturating_sub(1000),
        }
    }
    say!("no answer, as usual");
    Wish::None
}
