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
    let meaning = |key| match key {
        b'1' => Some(Wish::Start(Target::Slot(Slot::A))),
        b'2' => Some(Wish::Start(Target::Slot(Slot::B))),
        b'r' => Some(Wish::Start(Target::Recovery)),
        b'f' => Some(Wish::Firmware),
        b'n' => Some(Wish::None),
        _ => None,
    };
    console::ask(ANSWER_MS, meaning).unwrap_or_else(|| {
        say!("no answer, as usual");
        Wish::None
    })
}
