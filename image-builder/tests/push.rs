//! An image and its signatures go to a real registry and are found there.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image_builder::oci::{self, Recipe};
use image_builder::push::{Scheme, push};
use partition_layout::labels::{ImageLabels, KIND_OS};
use update_manifest::sign::SigningKey;
use update_manifest::trust::{TrustRoots, TrustedKey};
use updater::registry::signatures::Signed;
use updater::registry::transport::Patience;
use updater::registry::{Registry, session};

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \
             127.0.0.1:{port}\n",
            folder.join("data").display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry)");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry does not answer");
            std::thread::yield_now();
        }
        Server { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has served its purpose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
    let server = Server::start(&folder);
    let authority = format!("127.0.0.1:{}", server.port);
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
