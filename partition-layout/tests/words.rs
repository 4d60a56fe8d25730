//! What people read: each situation in words of its own.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use std::collections::BTreeSet;

use partition_layout::boot_state::Refused;
use partition_layout::guid::{self, Guid};
use partition_layout::labels;
use partition_layout::layout::{ALIGNMENT, FRESH, STATE_MIN};
use partition_layout::record::Cause;
use partition_layout::slot::Slot;
use partition_layout::slot_image::UKI_MAX;

/// Checks that no two are told in the same words, and none in too few.
fn differ(all: &[String]) {
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    assert!(all.iter().all(|words| words.len() >= 4), "{all:?}");
}

#[test]
fn causes_and_refusals() {
    let causes = [
        Cause::Unknown,
        Cause::TriesSpent,
        Cause::Unreadable,
        Cause::Refused,
        Cause::Returned,
        Cause::Gate,
        Cause::Verity,
        Cause::Hang,
        Cause::Overdue,
        Cause::Operator,
    ];
    differ(&causes.map(|cause| cause.words().to_owned()));
    let refusals = [
        Refused::NotConfirmed,
        Refused::OnTrial,
        Refused::NotSealed,
        Refused::NotDisarmed,
        Refused::Quarantined(Cause::Gate),
        Refused::Quarantined(Cause::Operator),
        Refused::BelowFloor,
        Refused::AboveRunning,
        Refused::AsksSpent,
    ];
    differ(&refusals.map(|refused| refused.to_string()));
    assert!(Refused::Quarantined(Cause::Gate).to_string().contains(Cause::Gate.words()));
    let labels = [
        labels::Invalid::Missing("product"),
        labels::Invalid::Value("product"),
        labels::Invalid::Format("9".into()),
    ];
    differ(&labels.map(|invalid| invalid.to_string()));
}

#[test]
fn slots_have_a_word_for_programs_and_a_letter_for_people() {
    for (slot, word, letter) in [(Slot::A, "a", "A"), (Slot::B, "b", "B")] {
        assert_eq!((slot.word(), Slot::from_word(word)), (word, Some(slot)));
        assert_eq!(slot.to_string(), letter);
        assert_eq!(slot.other().other(), slot);
        assert_eq!(Slot::ALL[slot.index()], slot);
    }
    for other in ["", "A", "c", "ab"] {
        assert_eq!(Slot::from_word(other), None);
    }
}

#[test]
fn guids_are_read_in_either_case_and_nothing_else_is() {
    let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    assert_eq!(Guid::parse(&text.to_uppercase()), Some(guid::ESP));
    assert_eq!(format!("{:?}", guid::ESP), text);
    for at in 0..text.len() {
        let mut bad = text.to_owned();
        bad.replace_range(at..=at, "g");
        assert_eq!(Guid::parse(&bad), None, "{bad}");
    }
}

/// What every disk and every image out there was made by.
#[test]
fn sizes_that_live_for_ever() {
    let sizes = FRESH.map(|part| part.size);
    assert_eq!(sizes, [536_870_912, 16_777_216, 2_147_483_648, 2_147_483_648]);
    assert!(sizes.iter().all(|size| size.is_multiple_of(ALIGNMENT)));
    // FAT32 on sectors of 4096 bytes needs 65,525 clusters of 4096 bytes.
    assert!(sizes[0] > 65_525 * 4096);
    assert_eq!((STATE_MIN, UKI_MAX), (268_435_456, 268_435_456));
}
