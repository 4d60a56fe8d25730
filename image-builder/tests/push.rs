//! An image and its signatures go to a real registry and are found there.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::fs;
use std::path::{Path, PathBuf};

use image_builder::oci::{self, Recipe};
use image_builder::push::{Scheme, push};
use partition_layout::labels::{ImageLabels, KIND_OS};
use update_manifest::sign::SigningKey;
use update_manifest::trust::{TrustRoots, TrustedKey};
use updater::registry::signatures::Signed;
use updater::registry::transport::Patience;
use updater::registry::{Registry, session};

fn layout(folder: &Path, key: &SigningKey) -> PathBuf {
    let slot = folder.join("slot.img");
    fs::write(&slot, vec![7; 2_500_000]).unwrap();
    let labels = ImageLabels {
        product: "bascule".into(),
        kind: KIND_OS.into(),
        arch: "amd64".into(),
        release: 1,
        secver: 0,
        min_from: 0,
        requires: Vec::new(),
        version: "0.1.0".into(),
        slot_size: 0,
        slot_sha256: [0; 32],
        root_hash: [1; 32],
    };
    let recipe = Recipe {
        slot: &slot,
        labels,
        created: "2025-01-01T00:00:00Z",
        level: 3,
        cache: None,
        key,
        reference: "bascule/os",
    };
    oci::write(&recipe, &folder.join("oci"), &|_| ()).unwrap();
    folder.join("oci")
}

#[test]
fn a_pushed_image_is_signed_for_whoever_asks() {
    let folder = std::env::temp_dir().join(format!("push-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let key = SigningKey::from_entropy(&[9; 32]).unwrap();
    let layout = layout(&folder, &key);
    let server = fault_proxy::registry::Registry::start(&folder);
    let authority = server.authority.clone();
    let reference = format!("{authority}/bascule/os:stable");
    let digest = push(&layout, &reference, Scheme::Plain, None, |_, _| ()).unwrap();
    // Again: nothing changes.
    assert_eq!(push(&layout, &reference, Scheme::Plain, None, |_, _| ()).unwrap(), digest);

    let access = session::Access {
        plain_http: true,
        credentials: None,
        extra_ca: None,
        patience: Patience::FIELD,
    };
    let registry = Registry::new(&authority, access).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let roots = |key: &SigningKey| {
        let pem = key.public_pem().unwrap();
        TrustRoots::new([TrustedKey::from_pem("test", &pem).unwrap()])
    };
    let ask = |roots| runtime.block_on(registry.signed("bascule/os", digest, &roots));
    assert!(matches!(ask(roots(&key)), Signed::Yes(_)), "{:?}", ask(roots(&key)));
    let other = SigningKey::from_entropy(&[8; 32]).unwrap();
    assert!(!matches!(ask(roots(&other)), Signed::Yes(_)));
    fs::remove_dir_all(&folder).unwrap();
}
