//! Field case RG-3: blobs that lie with another server.

use fault_proxy::{Faults, Login, Redirect};
use update_manifest::digest::Digest;
use updater::failure::Class;
use updater::registry::{Access, Registry};

use crate::support::tls::Front;
use crate::support::{Field, PATIENCE, REPOSITORY, access, credentials};

/// The client of a machine with a login, through the proxy.
fn with_login(field: &Field) -> Registry {
    let access = Access { credentials: Some(credentials()), ..access() };
    Registry::new(&field.authority(), access).unwrap()
}

#[tokio::test]
async fn a_login_goes_to_the_registry_and_not_to_where_it_sends_us() {
    for login in [Login::Basic, Login::Bearer] {
        let case = format!("{login:?}");
        let field = Field::start(&format!("storage-{case}")).await;
        field.set(Faults { redirect: Redirect::Storage, login, hops: 3, ..Faults::default() });
        let report = field.install_with(with_login(&field)).await;
        field.is_armed(&report, &case);
        let seen = field.proxy.take_seen();
        let (storage, front): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.at_storage);
        assert!(front.iter().any(|seen| seen.has_login), "{case}: no login at all");
        assert!(storage.iter().any(|seen| seen.range.is_some()), "{case}: no layer from there");
        assert!(storage.iter().all(|seen| !seen.has_login), "{case}: {storage:?}");
        assert!(seen.iter().all(|seen| seen.method == "GET"), "{case}: {seen:?}");
    }
}

#[tokio::test]
async fn a_signed_address_that_runs_out_is_asked_for_anew() {
    let field = Field::start("expiring").await;
    field.set(Faults { redirect: Redirect::Expiring, ..Faults::default() });
    let report = field.install().await;
    field.is_armed(&report, "every second address has run out");
}

#[tokio::test]
async fn a_blob_that_lies_elsewhere_is_not_pushed_again() {
    let field = Field::start("push").await;
    field.set(Faults { redirect: Redirect::Storage, ..Faults::default() });
    let client = field.client();
    for (blob, uploads) in [(field.release.layer.as_slice(), 0), (b"a new one", 1)] {
        assert_eq!(client.push_blob(REPOSITORY, blob).await, Ok(Digest::of(blob)));
        let seen = field.proxy.take_seen();
        let begun = seen.iter().filter(|seen| seen.method == "POST").count();
        assert_eq!(begun, uploads, "{seen:?}");
        let elsewhere = seen.iter().filter(|seen| seen.at_storage).count();
        assert_eq!(elsewhere, 0, "its address may be good for GET alone: {seen:?}");
    }
}

#[tokio::test]
async fn what_leads_nowhere_good_is_refused_before_the_slot_is_touched() {
    let field = Field::start("nowhere").await;
    let cases = [
        (Redirect::Storage, 15, "redirects"),
        (Redirect::Loop, 0, "redirects"),
        (Redirect::LinkLocal, 0, "link-local"),
        (Redirect::LinkLocalName, 0, "link-local"),
    ];
    for (redirect, hops, word) in cases {
        let case = format!("{redirect:?} {hops}");
        field.set(Faults { redirect, hops, ..Faults::default() });
        let report = field.install().await;
        let failure = field.is_untouched(&report, Class::CannotKnow, &case);
        assert!(failure.message.contains(word), "{case}: {failure:?}");
        let seen = field.proxy.take_seen();
        let hops = seen.iter().filter(|seen| seen.path.contains("/blobs/")).count();
        let most = 6 * PATIENCE.tries as usize;
        assert!(hops <= most, "{case}: {hops} requests for one blob");
        assert!(seen.iter().all(|seen| !seen.at_storage), "{case}: {seen:?}");
    }
}

#[tokio::test]
async fn https_leads_to_http_for_nothing() {
    let field = Field::start("downgrade").await;
    let front = Front::start(&field.server.folder, field.proxy.address()).await;

    field.set(Faults { redirect: Redirect::Storage, ..Faults::default() });
    let report = field.install_with(front.client()).await;
    let failure = field.is_untouched(&report, Class::CannotKnow, "a blob over http");
    assert!(failure.message.contains("from https to http:"), "{failure:?}");
    assert!(field.proxy.take_seen().iter().all(|seen| !seen.at_storage));

    // The proxy's token service is at http, as it does not know of the front.
    field.set(Faults { login: Login::Bearer, ..Faults::default() });
    let report = field.install_with(front.client()).await;
    let failure = field.is_untouched(&report, Class::CannotKnow, "a login over http");
    assert!(failure.message.contains("refused to send a login"), "{failure:?}");
    assert!(field.proxy.take_seen().iter().all(|seen| !seen.has_login));

    field.set(Faults { login: Login::Basic, ..Faults::default() });
    let report = field.install_with(front.client()).await;
    field.is_armed(&report, "all by https");
}
