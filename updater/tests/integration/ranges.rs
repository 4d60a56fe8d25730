//! Field case RG-1: registries that do ranges well, badly or not at all, and a line that breaks.
//!
//! The layer is always asked for by a closed range; the image is right whatever comes back; bytes
//! of a range that was not asked for are never written.

use fault_proxy::{Faults, Ranges, Seen};
use partition_layout::frames::FRAME_SIZE;
use updater::engine::plan::Outcome;
use updater::failure::Class;

use crate::support::Field;

/// Ways of answering that let a download go on where it broke off.
const RESUMABLE: [Ranges; 5] = [
    Ranges::Honest,
    Ranges::StripAcceptRanges,
    Ranges::Refuse416Open,
    Ranges::Earlier,
    Ranges::Half,
];
/// Ways of answering that leave only the whole layer.
const FROM_THE_START: [Ranges; 6] = [
    Ranges::Refuse416,
    Ranges::Whole200,
    Ranges::Other,
    Ranges::WrongHeader,
    Ranges::NoHeader,
    Ranges::Multipart,
];

/// Those of them whose first answer has nothing that could be cut, or is the whole layer.
const PASSED_OVER: [Ranges; 2] = [Ranges::Refuse416, Ranges::Whole200];

/// Whether a request names both ends of its range.
fn is_closed(seen: &Seen) -> bool {
    let ends =
        seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    ends.is_some_and(|(from, last)| from.parse::<u64>().is_ok() && last.parse::<u64>().is_ok())
}

/// Cuts the first good answer in the middle of the layer, and installs to the end.
async fn cut_in_the_middle(name: &str, ranges: Ranges) -> Vec<Seen> {
    let case = format!("{ranges:?}");
    let field = Field::start(&format!("{name}-{case}")).await;
    // Half of the half that this one sends is still half of it.
    let part = if ranges == Ranges::Half { 4 } else { 2 };
    let cut_after = Some(field.release.layer.len() as u64 / part);
    // The wrong range is cut too, but nobody reads it.
    let is_unread = FROM_THE_START.contains(&ranges) && !PASSED_OVER.contains(&ranges);
    let cuts = if is_unread { 2 } else { 1 };
    field.set(Faults { ranges, cut_after, cuts, ..Faults::default() });
    let report = field.install().await;
    field.is_armed(&report, &case);
    let (from, until) = field.release.frames_span();
    // What arrived of the frame that was cut is all that comes twice.
    let most = until - from + FRAME_SIZE;
    assert!(report.downloaded <= most, "{case}: {} of {most}", report.downloaded);
    let seen = field.layer_requests();
    assert!(seen.len() > 1, "{case}: nothing broke off");
    let (closed, whole): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| is_closed(seen));
    assert!(whole.iter().all(|seen| seen.range.is_none()), "{case}: an open range in {whole:?}");
    assert!(closed.len() >= whole.len(), "{case}: ranges are asked for first: {seen:?}");
    seen
}

#[tokio::test]
async fn a_cut_download_goes_on_where_ranges_work() {
    for ranges in RESUMABLE {
        let seen = cut_in_the_middle("resumes", ranges).await;
        assert!(seen.iter().all(is_closed), "{ranges:?}: no restart is needed: {seen:?}");
    }
}

#[tokio::test]
async fn a_cut_download_begins_anew_once_where_they_do_not() {
    for ranges in FROM_THE_START {
        let seen = cut_in_the_middle("restarts", ranges).await;
        // One answer that broke off, and one restart; before each, a range that is of no use.
        let expected = if ranges == Ranges::Whole200 { 2 } else { 4 };
        assert_eq!(seen.len(), expected, "{ranges:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_range_that_nobody_asked_for_is_the_servers_fault_and_never_written() {
    let field = Field::start("other-range").await;
    field.set(Faults { ranges: Ranges::OtherAlways, ..Faults::default() });
    let report = field.install().await;
    let failure = report.result.unwrap_err();
    assert_eq!(failure.class, Class::CannotKnow, "{failure:?}");
    assert!(failure.message.contains("instead of"), "{failure:?}");
    assert_eq!(report.downloaded, 0);
    // Disarmed, since the write was about to begin; but for the trailer, which goes first, nothing
    // of the slot has changed.
    assert!(field.machine.is_half_written());
    let slot = field.machine.other_slot();
    let (head, trailer) = slot.split_at(slot.len() - 4096);
    assert!(head.iter().all(|byte| *byte == head[0]) && trailer.iter().all(|byte| *byte == 0));
    assert!(!field.layer_requests().is_empty());

    field.set(Faults::default());
    let report = field.install().await;
    field.is_armed(&report, "the server is mended");
}

#[tokio::test]
async fn nothing_is_asked_for_behind_the_end() {
    let field = Field::start("exact-end").await;
    let (_, until) = field.release.frames_span();
    // Breaks off exactly behind the last frame: all that is needed has come.
    field.set(Faults { ranges: Ranges::Whole200, cut_after: Some(until), ..Faults::default() });
    let report = field.install().await;
    field.is_armed(&report, "cut at the exact end");
    assert_eq!(field.layer_requests().len(), 1);

    field.set(Faults::default());
    let again = field.install().await;
    assert_eq!(again.result, Ok(Outcome::AlreadyArmed));
    assert!(field.layer_requests().is_empty());
}
