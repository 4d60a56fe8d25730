//! *Cannot know*, *refused* and *no update* are three answers, told apart whatever a registry says
//! and wherever it says it.

use std::time::Duration;

use fault_proxy::{Faults, Refusal};
use updater::engine::plan::{Goal, Outcome};
use updater::failure::Class;
use updater::policy::Direction;

use crate::support::release::Release;
use crate::support::tls::Front;
use crate::support::{Field, PATIENCE, REPOSITORY, TAG, client, key};

/// An answer of `status` for paths that contain `path`.
fn refusal(path: &str, status: u16, html: bool) -> Faults {
    let refusal = Refusal { path: path.into(), status, retry_after: None, html, times: 0 };
    Faults { refusal: Some(refusal), ..Faults::default() }
}

#[tokio::test]
async fn an_answer_that_is_no_registrys_says_nothing() {
    let field = Field::start("no-answer").await;
    let answers = [
        (429, false),
        (500, false),
        (502, true),
        (503, false),
        (504, false),
        (408, false),
        (200, true),
        (403, true),
        (404, true),
        // Not in a registry's form: a path that a proxy does not know.
        (404, false),
    ];
    let tag = format!("/manifests/{TAG}");
    for (status, html) in answers {
        for path in ["", tag.as_str(), "/blobs/"] {
            let case = format!("{status}, html: {html}, at {path:?}");
            field.set(refusal(path, status, html));
            let report = field.install().await;
            let failure = field.is_untouched(&report, Class::CannotKnow, &case);
            assert_eq!(failure.kind, "registry", "{case}: {failure:?}");
        }
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_says_nothing() {
    let field = Field::start("gone").await;
    // A port that was free a moment ago.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = field.install_with(client(&gone.to_string())).await;
    field.is_untouched(&report, Class::CannotKnow, "nobody listens");
}

/// CK-1: what a machine meets whose clock is at 1970; here the certificate is of tomorrow instead.
#[tokio::test]
async fn a_certificate_of_another_time_leads_to_the_clock() {
    let field = Field::start("clock").await;
    let front = Front::start_from(&field.server.folder, field.proxy.address(), 2090).await;
    let report = field.install_with(front.client()).await;
    let failure = field.is_untouched(&report, Class::CannotKnow, "not valid yet");
    assert!(failure.message.contains("is the clock not set? It says 20"), "{failure:?}");
}

#[tokio::test]
async fn a_signature_that_cannot_be_looked_for_is_not_a_missing_one() {
    let field = Field::unsigned("no-look").await;
    let tag = field.release.image().digest.referrers_tag();
    for (status, html) in [(503, false), (429, false), (200, true)] {
        for path in ["/referrers/", &tag] {
            let case = format!("{status}, html: {html}, at {path}");
            field.set(refusal(path, status, html));
            let report = field.install().await;
            field.is_untouched(&report, Class::CannotKnow, &case);
        }
    }
    field.set(Faults::default());
    let report = field.install().await;
    let failure = field.is_untouched(&report, Class::Refused, "all was looked at");
    assert_eq!(failure.kind, "unsigned");

    // One that is found in another place is good all the same.
    field.release.sign(&field.server.client(), &key()).await;
    field.set(refusal("/referrers/", 503, false));
    let report = field.install().await;
    field.is_armed(&report, "found under the tag");
}

#[tokio::test]
async fn what_a_registry_says_in_its_own_form_is_an_answer() {
    let field = Field::start("own-form").await;
    let absent = field.order(field.client(), "nightly", Goal::Arm, Direction::Newer).await;
    let failure = field.is_untouched(&absent, Class::Refused, "a tag that is not there");
    assert_eq!(failure.kind, "absent");

    let running = Release::new(1);
    running.publish(&field.server.client()).await;
    running.sign(&field.server.client(), &key()).await;
    let same = field.order(field.client(), TAG, Goal::Arm, Direction::Newer).await;
    assert_eq!(same.result, Ok(Outcome::NotNewer));
    assert!(field.machine.is_as_at_first());
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_or_handed_on() {
    let field = Field::start("wait").await;
    let limited = |retry_after: &str, times| {
        let retry_after = Some(retry_after.to_owned());
        let refusal = Refusal { path: String::new(), status: 429, retry_after, html: false, times };
        Faults { refusal: Some(refusal), ..Faults::default() }
    };
    // Longer than is sat out here: asked once, and the caller hears when.
    field.set(limited("3600", 0));
    let report = field.install().await;
    field.is_untouched(&report, Class::CannotKnow, "an hour");
    assert_eq!(report.retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(field.proxy.take_seen().len(), 1);
    // A moment: tried again until the answer comes.
    field.set(limited("0", PATIENCE.tries - 1));
    let report = field.install().await;
    field.is_armed(&report, "tried again");
    let seen = field.proxy.take_seen();
    let tag = format!("/v2/{REPOSITORY}/manifests/{TAG}");
    let asked = seen.iter().filter(|seen| seen.path == tag).count();
    assert_eq!(asked, PATIENCE.tries as usize);
}
