//! Field case RG-5: where a signature may hang, and what else may hang there.
//!
//! Found with the referrers API and without, however it is labelled, whatever else is attached and
//! in which order, in a bounded number of requests.

use fault_proxy::{Faults, Referrers};
use update_manifest::oci::{Descriptor, Index, MEDIA_EMPTY, MEDIA_INDEX, MEDIA_MANIFEST, Manifest};
use update_manifest::sign::{describe, sign_bundle, sign_simple};
use updater::registry::Registry;
use updater::registry::push::Attachment;
use updater::registry::signatures::Signed;

use crate::support::stock::{must, trust};
use crate::support::{Field, REPOSITORY, TAG, key};

const SBOM: &str = "application/spdx+json";
const DELTA: &str = "application/vnd.bascule.delta.v1";
/// Requests that one search may make: what the client allows itself, and the lists.
const REQUESTS_MAX: usize = 512 + 16;

/// A referrer of the field's release that is no signature, pushed by its digest alone.
async fn attach(field: &Field, client: &Registry, kind: &str, note: &str) -> Descriptor {
    client.push_blob(REPOSITORY, b"{}").await.unwrap();
    client.push_blob(REPOSITORY, note.as_bytes()).await.unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MEDIA_MANIFEST.into()),
        artifact_type: Some(kind.into()),
        config: describe(MEDIA_EMPTY, b"{}"),
        layers: vec![describe(kind, note.as_bytes())],
        subject: Some(field.release.image()),
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let listed = describe(MEDIA_MANIFEST, &bytes);
    let digest = listed.digest.to_string();
    client.push_manifest(REPOSITORY, &digest, MEDIA_MANIFEST, &bytes).await.unwrap();
    Descriptor { artifact_type: Some(kind.into()), ..listed }
}

/// Pushes the release's signature by its digest alone, and says how an index lists it.
async fn push_signature(field: &Field) -> Descriptor {
    let client = field.server.client();
    let signature = sign_bundle(&field.release.image(), &key());
    client.push_blob(REPOSITORY, &signature.config).await.unwrap();
    client.push_blob(REPOSITORY, &signature.layer).await.unwrap();
    let digest = signature.descriptor.digest.to_string();
    client.push_manifest(REPOSITORY, &digest, MEDIA_MANIFEST, &signature.manifest).await.unwrap();
    signature.descriptor
}

/// Puts `entries` under the release's fallback tag.
async fn list(field: &Field, entries: impl IntoIterator<Item = Descriptor>) {
    let manifests = entries.into_iter().collect();
    let index = Index { schema_version: 2, media_type: Some(MEDIA_INDEX.into()), manifests };
    let index = serde_json::to_vec(&index).unwrap();
    let tag = field.release.image().digest.referrers_tag();
    field.server.client().push_manifest(REPOSITORY, &tag, MEDIA_INDEX, &index).await.unwrap();
}

/// What a cosign that mislabels writes into an index.
fn bare(entry: Descriptor) -> Descriptor {
    Descriptor { artifact_type: None, annotations: Default::default(), ..entry }
}

/// Asks whether the release is signed; returns how many requests that took, too.
async fn ask(field: &Field) -> (Signed, usize) {
    drop(field.proxy.take_seen());
    let digest = field.release.image().digest;
    let answer = field.client().signed(REPOSITORY, digest, &trust(&key())).await;
    (answer, field.proxy.take_seen().len())
}

async fn is_signed(field: &Field, case: &str) {
    let (answer, requests) = ask(field).await;
    assert!(matches!(answer, Signed::Yes(_)), "{case}: {answer:?}");
    assert!(requests <= REQUESTS_MAX, "{case}: {requests} requests");
}

#[tokio::test]
async fn an_index_that_says_nothing_of_its_entries_hides_no_signature() {
    let field = Field::unsigned("bare-index").await;
    let signature = push_signature(&field).await;
    let client = field.server.client();
    let (sbom, delta) =
        (attach(&field, &client, SBOM, "one").await, attach(&field, &client, DELTA, "two").await);
    let mislabelled =
        Descriptor { artifact_type: Some(MEDIA_EMPTY.into()), ..bare(signature.clone()) };
    for (case, entry) in [("bare", bare(signature)), ("mislabelled", mislabelled)] {
        for at in 0..3 {
            let mut entries = vec![bare(sbom.clone()), delta.clone()];
            entries.insert(at, entry.clone());
            list(&field, entries).await;
            is_signed(&field, &format!("{case}, entry {at}")).await;
        }
    }
}

#[tokio::test]
async fn with_the_referrers_api_the_order_of_attachments_is_irrelevant() {
    for at in 0..3 {
        let case = format!("api-order-{at}");
        let field = Field::unsigned(&case).await;
        let served = Faults { referrers: Referrers::Served, crowd: 200, ..Faults::default() };
        field.set(served);
        for step in 0..3 {
            if step == at {
                field.release.sign(&field.client(), &key()).await;
            } else {
                attach(&field, &field.client(), SBOM, &format!("sbom {step}")).await;
            }
        }
        let report = field.install().await;
        field.is_armed(&report, &case);
        // It was not in the fallback tag that the signature was found.
        field.set(Faults::default());
        let (answer, _) = ask(&field).await;
        assert!(matches!(&answer, Signed::No(reasons) if reasons.is_empty()), "{answer:?}");
    }
}

#[tokio::test]
async fn two_hundred_others_that_say_nothing_hide_no_signature() {
    let field = Field::unsigned("crowd").await;
    let signature = push_signature(&field).await;
    let client = field.server.client();
    let mut entries = Vec::new();
    for number in 0..200 {
        entries.push(bare(attach(&field, &client, SBOM, &format!("sbom {number}")).await));
    }
    entries.push(bare(signature));
    list(&field, entries).await;
    is_signed(&field, "two hundred in front").await;
}

#[tokio::test]
async fn more_than_is_looked_at_is_not_the_same_as_unsigned() {
    let field = Field::unsigned("overflow").await;
    field.set(Faults { referrers: Referrers::Served, crowd: 2000, ..Faults::default() });
    let (answer, requests) = ask(&field).await;
    assert!(matches!(answer, Signed::CannotKnow(_)), "{answer:?}");
    assert!(requests <= REQUESTS_MAX, "{requests} requests");
    field.set(Faults { referrers: Referrers::Served, crowd: 200, ..Faults::default() });
    let (answer, _) = ask(&field).await;
    assert!(matches!(&answer, Signed::No(reasons) if reasons.is_empty()), "{answer:?}");
}

#[tokio::test]
async fn an_api_that_is_of_no_use_leaves_the_tags() {
    for attachment in [Attachment::Referrer, Attachment::SignatureTag] {
        let field = Field::unsigned(&format!("no-api-{attachment:?}")).await;
        let image = field.release.image();
        let signature = match attachment {
            Attachment::Referrer => sign_bundle(&image, &key()),
            Attachment::SignatureTag => sign_simple(image.digest, "os", &key()),
        };
        let client = field.server.client();
        client.push_signature(REPOSITORY, image.digest, &signature, attachment).await.unwrap();
        for referrers in [Referrers::Honest, Referrers::Empty, Referrers::NotJson, Referrers::Html]
        {
            field.set(Faults { referrers, ..Faults::default() });
            is_signed(&field, &format!("{attachment:?}, {referrers:?}")).await;
        }
    }
}

/// cosign 3 itself, on the registry as it is and on one with the API.
#[tokio::test]
async fn what_cosign_attaches_is_found_with_the_api_and_without() {
    for referrers in [Referrers::Honest, Referrers::Served] {
        let field = Field::unsigned(&format!("cosign-{referrers:?}")).await;
        field.set(Faults { referrers, ..Faults::default() });
        let folder = &field.server.folder;
        let (private, _) = field.server.key_files(&key());
        let words = ["import-key-pair", "--output-key-prefix", "ours", "--yes", "--key"];
        must("cosign", folder, &[&words[..], &[private.to_str().unwrap()]].concat());
        std::fs::write(folder.join("sbom"), r#"{"spdxVersion":"SPDX-2.3"}"#).unwrap();
        let offline = ["--allow-http-registry", "--yes", "--use-signing-config=false"];
        let offline = [&offline[..], &["--tlog-upload=false", "--key", "ours.key"]].concat();
        let image = format!("{}/{REPOSITORY}:{TAG}", field.authority());
        let attest = ["attest", "--type", "spdxjson", "--predicate", "sbom"];
        for words in [&attest[..], &["sign"], &attest[..]] {
            must("cosign", folder, &[words, &offline, &[&image]].concat());
        }
        is_signed(&field, &format!("{referrers:?}")).await;
    }
}
