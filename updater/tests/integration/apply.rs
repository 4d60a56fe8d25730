//! A whole apply into a slot that is a file: what it leaves when it ends early, and that the next
//! one goes on.

use fault_proxy::{Faults, Ranges};
use partition_layout::frames::FRAME_SIZE;
use update_manifest::sign::SigningKey;
use updater::engine::plan::{Goal, Outcome};
use updater::engine::slot::inspect_slot;
use updater::failure::Class;
use updater::policy::Direction;

use crate::support::{Field, TAG};

#[tokio::test]
async fn it_arms_once_and_says_so_the_second_time() {
    let field = Field::start("apply").await;
    let staged = field.order(field.client(), TAG, Goal::Seal, Direction::NotOlder).await;
    assert_eq!(staged.result, Ok(Outcome::Sealed));
    assert!(!field.machine.is_armed());
    let report = field.install().await;
    field.is_armed(&report, "from the sealed slot");
    assert_eq!(report.downloaded, 0);
    assert_eq!(field.install().await.result, Ok(Outcome::AlreadyArmed));
    let slot = inspect_slot(&field.machine.folder.join("b"), |_| {}).unwrap();
    assert_eq!(slot.is_whole().unwrap().release, 2);
}

#[tokio::test]
async fn a_download_that_is_given_up_is_taken_up_by_the_next_apply() {
    let field = Field::start("taken-up").await;
    // A server without ranges on a line that always breaks at the same place.
    let cut = field.release.frames.offset(3).unwrap() - 1000;
    field.set(Faults { ranges: Ranges::Whole200, cut_after: Some(cut), ..Faults::default() });
    let report = field.install().await;
    assert_eq!(report.result.unwrap_err().class, Class::CannotKnow);
    assert!(field.machine.is_half_written());
    let given_up = field.layer_requests().len();
    assert!(given_up <= 10, "{given_up} tries that brought nothing");

    field.set(Faults::default());
    let report = field.install().await;
    field.is_armed(&report, "the next one");
    assert_eq!(report.resumed, 2 * FRAME_SIZE);
    let (_, until) = field.release.frames_span();
    assert_eq!(report.downloaded, until - field.release.frames.offset(2).unwrap());
}

#[tokio::test]
async fn a_line_that_falls_silent_is_left_and_asked_again() {
    let field = Field::start("silent").await;
    let cut_after = Some(field.release.layer.len() as u64 / 2);
    field.set(Faults { cut_after, cuts: 1, stalls: true, ..Faults::default() });
    let report = field.install().await;
    field.is_armed(&report, "silent in the middle");
    assert_eq!(field.layer_requests().len(), 2);
}

#[tokio::test]
async fn bytes_that_are_not_what_was_signed_are_never_armed() {
    let field = Field::start("altered").await;
    field.set(Faults { alter_blob: true, ..Faults::default() });
    let report = field.install().await;
    assert_eq!(report.result.unwrap_err().class, Class::Corrupt);
    assert!(field.machine.is_half_written());
    let slot = inspect_slot(&field.machine.folder.join("b"), |_| {}).unwrap();
    assert_eq!(slot.is_whole().unwrap_err(), "no valid trailer");
    field.set(Faults::default());
    let report = field.install().await;
    field.is_armed(&report, "from a good mirror");
    assert_eq!(report.resumed, 0, "nothing of the bad mirror's is kept");
}

#[tokio::test]
async fn a_strangers_signature_moves_nothing() {
    let field = Field::unsigned("stranger").await;
    let stranger = SigningKey::from_entropy(&[2; 32]).unwrap();
    field.release.sign(&field.server.client(), &stranger).await;
    let report = field.install().await;
    let failure = field.is_untouched(&report, Class::Refused, "another key");
    assert_eq!(failure.kind, "wrong-key");
    assert!(field.layer_requests().is_empty());
}
