//! Field case RG-8: proxies that lose, change or re-encode what a digest is about.
//!
//! The digest is always that of the bytes received, in no coding; a header that names another is an
//! error; sizes are bounded.

use fault_proxy::{DigestHeader, Faults, Gzip};
use update_manifest::digest::Digest;
use update_manifest::oci::{MANIFEST_BYTES_MAX, MEDIA_MANIFEST};
use update_manifest::sign::{describe, sign_bundle};
use updater::engine::plan::{Goal, Outcome};
use updater::failure::Class;
use updater::policy::Direction;
use updater::registry::push::Attachment;
use updater::registry::{Reference, RegistryError};

use crate::support::{Field, REPOSITORY, TAG, key};

#[tokio::test]
async fn what_is_only_lost_on_the_way_changes_nothing() {
    let missing = DigestHeader::Missing;
    let cases = [
        ("no header", Faults { digest_header: missing, ..Faults::default() }),
        ("no length", Faults { chunked: true, ..Faults::default() }),
        ("gzip where it is taken", Faults { gzip: Gzip::Accepted, ..Faults::default() }),
        (
            "all of it",
            Faults {
                digest_header: missing,
                chunked: true,
                gzip: Gzip::Accepted,
                ..Faults::default()
            },
        ),
    ];
    for (case, faults) in cases {
        let field = Field::start(&format!("lost-{}", case.replace(' ', "-"))).await;
        field.set(faults);
        let report = field.install().await;
        field.is_armed(&report, case);
    }
}

#[tokio::test]
async fn other_bytes_than_were_named_are_refused_before_the_slot_is_touched() {
    let field = Field::start("named").await;
    let wrong_header = Faults { digest_header: DigestHeader::Wrong, ..Faults::default() };
    let always_gzip = Faults { gzip: Gzip::Always, ..Faults::default() };
    let cases = [
        ("wrong header", wrong_header, Class::Corrupt, "the registry names"),
        // Nothing is known of the image: the proxy is in the way.
        ("gzip though refused", always_gzip, Class::CannotKnow, "gzip"),
    ];
    for (case, faults, class, word) in cases {
        field.set(faults);
        let report = field.install().await;
        let failure = field.is_untouched(&report, class, case);
        assert!(failure.message.contains(word), "{case}: {failure:?}");
    }
    // The tag leads to bytes whose header is right for them, but nobody signed them.
    field.set(Faults { alter_manifest: true, ..Faults::default() });
    let report = field.install().await;
    let failure = field.is_untouched(&report, Class::Refused, "altered");
    assert_eq!(failure.kind, "unsigned");
}

#[tokio::test]
async fn a_manifest_by_digest_is_held_against_that_digest() {
    let field = Field::start("by-digest").await;
    let digest = field.release.image().digest;
    let source = format!("{}/{REPOSITORY}@{digest}", field.authority());
    let source = Reference::parse(&source).unwrap();
    let missing = DigestHeader::Missing;
    field.set(Faults { digest_header: missing, ..Faults::default() });
    assert_eq!(field.client().manifest(&source).await.unwrap().digest, digest);
    // One byte more, and no header that would give it away.
    field.set(Faults { digest_header: missing, pad_manifest: 1, ..Faults::default() });
    let answer = field.client().manifest(&source).await;
    assert!(matches!(&answer, Err(RegistryError::Corrupt(_))), "{answer:?}");
}

#[tokio::test]
async fn a_manifest_of_four_mebibytes_is_taken_and_a_larger_one_is_not() {
    let field = Field::start("sizes").await;
    let server = field.server.client();
    let large = field.release.manifest_with(MANIFEST_BYTES_MAX);
    server.push_manifest(REPOSITORY, "large", MEDIA_MANIFEST, &large).await.unwrap();
    let image = describe(MEDIA_MANIFEST, &large);
    let signature = sign_bundle(&image, &key());
    server
        .push_signature(REPOSITORY, image.digest, &signature, Attachment::Referrer)
        .await
        .unwrap();
    for chunked in [false, true] {
        field.set(Faults { chunked, ..Faults::default() });
        let look = field.order(field.client(), "large", Goal::Look, Direction::Newer).await;
        assert_eq!(look.result, Ok(Outcome::Available));
        assert_eq!(look.digest, Some(Digest::of(&large)));

        field.set(Faults { chunked, pad_manifest: 1, ..Faults::default() });
        let look = field.order(field.client(), "large", Goal::Look, Direction::Newer).await;
        let failure = field.is_untouched(&look, Class::Corrupt, "a byte more");
        assert!(failure.message.contains("larger than"), "{failure:?}");

        field.set(Faults { chunked, pad_manifest: 5 << 20, ..Faults::default() });
        let look = field.order(field.client(), TAG, Goal::Look, Direction::Newer).await;
        let failure = field.is_untouched(&look, Class::Corrupt, "5 MiB");
        assert!(failure.message.contains("larger than"), "{failure:?}");
    }
}
