//! What cosign 3 signs we accept, what we sign cosign 3 accepts, and what copies leave behind.
//!
//! Needs `docker-registry`, `skopeo`, and cosign 3 and oras in `$BASCULE_TOOLS` (`cargo xtask
//! setup`).

use update_manifest::oci::Descriptor;
use update_manifest::sign::{SigningKey, sign_bundle, sign_simple};
use update_manifest::trust::NotVouched;
use updater::registry::push::Attachment;
use updater::registry::signatures::Signed;

use crate::support::stock::{Server, must, tool, trust};

const REPOSITORY: &str = "bascule/os";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_entropy(&[seed; 32]).unwrap()
}

fn reference(server: &Server, repository: &str, image: &Descriptor) -> String {
    format!("{}/{repository}@{}", server.authority, image.digest)
}

/// Signs, or attests, with cosign and `key`, offline.
fn cosign(server: &Server, key: &SigningKey, words: &[&str]) {
    let (private, _) = server.key_files(key);
    let prefix = server.folder.join(format!("imported-{}", words.first().unwrap()));
    let (private, prefix) = (private.to_str().unwrap(), prefix.to_str().unwrap());
    let import = ["import-key-pair", "--key", private, "--output-key-prefix", prefix, "--yes"];
    must("cosign", &server.folder, &import);
    let imported = format!("{prefix}.key");
    let mut all = words.to_vec();
    let offline = ["--allow-http-registry", "--yes", "--use-signing-config=false", "--key"];
    let at = all.len() - 1;
    all.splice(at..at, offline.into_iter().chain([imported.as_str(), "--tlog-upload=false"]));
    must("cosign", &server.folder, &all);
}

fn cosign_accepts(server: &Server, key: &SigningKey, reference: &str, more: &[&str]) -> bool {
    let (_, public) = server.key_files(key);
    let mut words = vec!["verify", "--allow-http-registry", "--insecure-ignore-tlog"];
    words.extend_from_slice(more);
    words.extend_from_slice(&["--key", public.to_str().unwrap(), reference]);
    let (good, said) = tool("cosign", &server.folder, &words);
    println!("cosign {words:?}: {good}: {said}");
    good
}

#[tokio::test]
async fn what_cosign_signs_is_accepted() {
    let server = Server::start("theirs");
    let image = server.publish(REPOSITORY, "1").await;
    let client = server.client();
    let before = client.signed(REPOSITORY, image.digest, &trust(&key(1))).await;
    assert!(matches!(&before, Signed::No(reasons) if reasons.is_empty()), "{before:?}");

    cosign(&server, &key(1), &["sign", &reference(&server, REPOSITORY, &image)]);
    let signed = client.signed(REPOSITORY, image.digest, &trust(&key(1))).await;
    assert!(matches!(&signed, Signed::Yes(who) if who.key() == "publisher"), "{signed:?}");
    let stranger = client.signed(REPOSITORY, image.digest, &trust(&key(2))).await;
    let said_why = |reasons: &Vec<NotVouched>| reasons == &[NotVouched::UnknownKey];
    assert!(matches!(&stranger, Signed::No(reasons) if said_why(reasons)), "{stranger:?}");
}

#[tokio::test]
async fn an_attestation_by_the_same_key_is_no_signature_of_a_release() {
    let server = Server::start("attested");
    let image = server.publish(REPOSITORY, "1").await;
    let predicate = server.folder.join("sbom.json");
    std::fs::write(&predicate, r#"{"spdxVersion":"SPDX-2.3"}"#).unwrap();
    let predicate = predicate.to_str().unwrap();
    let words = ["attest", "--type", "spdxjson", "--predicate", predicate];
    let reference = reference(&server, REPOSITORY, &image);
    cosign(&server, &key(1), &[&words[..], &[&reference]].concat());
    let answer = server.client().signed(REPOSITORY, image.digest, &trust(&key(1))).await;
    let wrong = |reason: &NotVouched| matches!(reason, NotVouched::WrongPurpose(_));
    assert!(matches!(&answer, Signed::No(reasons) if reasons.iter().any(wrong)), "{answer:?}");
}

#[tokio::test]
async fn cosign_accepts_each_layout_that_we_write() {
    let server = Server::start("ours");
    let client = server.client();
    let name = format!("{}/{REPOSITORY}", server.authority);
    for (seed, attachment) in [("1", Attachment::Referrer), ("2", Attachment::SignatureTag)] {
        let image = server.publish(REPOSITORY, seed).await;
        let reference = reference(&server, REPOSITORY, &image);
        let older: &[&str] = match attachment {
            Attachment::Referrer => &[],
            Attachment::SignatureTag => &["--new-bundle-format=false"],
        };
        assert!(!cosign_accepts(&server, &key(1), &reference, older), "unsigned, {attachment:?}");
        let signature = match attachment {
            Attachment::Referrer => sign_bundle(&image, &key(1)),
            Attachment::SignatureTag => sign_simple(image.digest, &name, &key(1)),
        };
        client.push_signature(REPOSITORY, image.digest, &signature, attachment).await.unwrap();
        assert!(cosign_accepts(&server, &key(1), &reference, older), "signed, {attachment:?}");
        assert!(!cosign_accepts(&server, &key(2), &reference, older), "stranger, {attachment:?}");
        let ours = client.signed(REPOSITORY, image.digest, &trust(&key(1))).await;
        assert!(matches!(ours, Signed::Yes(_)), "{attachment:?}: {ours:?}");
    }
}

#[tokio::test]
async fn a_plain_copy_leaves_the_signature_behind_and_a_recursive_one_takes_it_along() {
    let server = Server::start("copies");
    let client = server.client();
    let image = server.publish(REPOSITORY, "1").await;
    let signature = sign_bundle(&image, &key(1));
    client
        .push_signature(REPOSITORY, image.digest, &signature, Attachment::Referrer)
        .await
        .unwrap();
    let from = format!("{}/{REPOSITORY}:v1", server.authority);

    let plain = format!("docker://{}/mirror/plain:v1", server.authority);
    let source = format!("docker://{from}");
    let words = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    must(
        "skopeo",
        &server.folder,
        &[&words[..], &["--preserve-digests", &source, &plain]].concat(),
    );
    let left = client.signed("mirror/plain", image.digest, &trust(&key(1))).await;
    assert!(matches!(&left, Signed::No(reasons) if reasons.is_empty()), "{left:?}");

    let whole = format!("{}/mirror/whole:v1", server.authority);
    let words = ["cp", "-r", "--from-plain-http", "--to-plain-http", &from, &whole];
    must("oras", &server.folder, &words);
    let taken = client.signed("mirror/whole", image.digest, &trust(&key(1))).await;
    assert!(matches!(taken, Signed::Yes(_)), "{taken:?}");
}
