//! Images of services: pulled whole or not at all, whatever the registry does.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use fault_proxy::{Faults, Proxy, Ranges};
use os_init::services::images::{Images, ROOT};
use serde_json::{Value, json};
use update_manifest::oci::{Descriptor, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST};
use update_manifest::sign::{describe, sign_bundle};
use update_manifest::trust::{TrustRoots, TrustedKey};
use updater::failure::{Class, Failure};
use updater::registry::push::Attachment;
use updater::registry::{Reference, Registry};
use updater::service_image::{Pulled, Source, pull};

use crate::support::stock::Server;
use crate::support::{REPOSITORY, client, key};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A registry behind a proxy, and a machine's folder of images.
struct Shelf {
    proxy: Proxy,
    server: Server,
    images: Images,
    folder: PathBuf,
}

impl Shelf {
    fn start(name: &str) -> Shelf {
        let server = Server::start(&format!("images-{name}"));
        let proxy = Proxy::start("127.0.0.1:0", &server.authority, Faults::default()).unwrap();
        let folder = server.folder.join("images");
        Shelf { proxy, server, images: Images::at(&folder), folder }
    }

    /// Pushes an image with these layers for this architecture, signed or not; its listing.
    async fn publish(&self, layers: &[(&str, Vec<u8>)], arch: &str, signed: bool) -> Descriptor {
        let pushing = self.server.client();
        let config = json!({ "architecture": arch, "os": "linux", "config": { "Cmd": ["/a"] } });
        let config = config.to_string().into_bytes();
        let mut listed = Vec::new();
        for (kind, bytes) in layers {
            pushing.push_blob(REPOSITORY, bytes).await.unwrap();
            listed.push(describe(kind, bytes));
        }
        pushing.push_blob(REPOSITORY, &config).await.unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": describe(MEDIA_CONFIG, &config),
            "layers": listed,
        });
        self.push(&pushing, MEDIA_MANIFEST, &manifest, signed).await
    }

    async fn push(
        &self,
        pushing: &Registry,
        kind: &str,
        document: &Value,
        signed: bool,
    ) -> Descriptor {
        let bytes = document.to_string().into_bytes();
        let described = describe(kind, &bytes);
        let tag = format!("t{}", &described.digest.to_string()[7..19]);
        pushing.push_manifest(REPOSITORY, &tag, kind, &bytes).await.unwrap();
        if signed {
            let signature = sign_bundle(&described, &key());
            let digest = described.digest;
            let pushed =
                pushing.push_signature(REPOSITORY, digest, &signature, Attachment::Referrer);
            pushed.await.unwrap();
        }
        described
    }

    fn name(&self, image: &Descriptor) -> String {
        format!("{}/{REPOSITORY}@{}", self.proxy.address(), image.digest)
    }

    async fn pull(&self, image: &Descriptor) -> Result<Pulled, Failure> {
        self.pull_named(&self.name(image)).await
    }

    async fn pull_named(&self, name: &str) -> Result<Pulled, Failure> {
        let key = TrustedKey::from_pem("test", &key().public_pem().unwrap()).unwrap();
        let roots = TrustRoots::new([key]);
        let reference = Reference::parse(name).unwrap();
        let registry = client(&self.proxy.address().to_string());
        let source =
            Source { registry: &registry, reference: &reference, platform: "amd64", roots: &roots };
        pull(&source, &self.images, Arc::new(|_| {})).await
    }

    /// A failed pull leaves nothing that counts.
    async fn refused(&self, image: &Descriptor, class: Class, kind: &str) {
        let failure = self.pull(image).await.unwrap_err();
        assert_eq!((failure.class, &*failure.kind), (class, kind), "{failure}");
        assert!(!self.images.has(&self.name(image)), "{failure}");
    }

    fn text(&self, image: &Descriptor, path: &str) -> Option<String> {
        let place = self.images.place(&self.name(image)).unwrap();
        fs::read_to_string(place.join(ROOT).join(path)).ok()
    }
}

/// A layer of these files.
fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Text that does not pack well, so that a layer is worth cutting.
fn noise(length: usize) -> String {
    let mut state = 7_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..length).map(|_| letter()).collect()
}

#[tokio::test]
async fn every_packing_is_unpacked_in_order() {
    let shelf = Shelf::start("packings");
    let layers = [
        (PLAIN, layer(&[("etc/a", "1"), ("etc/b", "1")])),
        (GZIP, gzip(&layer(&[("etc/a", "2"), ("etc/.wh.b", "")]))),
        (MEDIA_LAYER, zstd::encode_all(&*layer(&[("etc/c", "3")]), 3).unwrap()),
    ];
    let image = shelf.publish(&layers, "amd64", true).await;
    let pulled = shelf.pull(&image).await.unwrap();
    let size: usize = layers.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((pulled.downloaded, pulled.was_there, &*pulled.key), (size as u64, false, "test"));
    let texts = ["etc/a", "etc/b", "etc/c"].map(|path| shelf.text(&image, path));
    assert_eq!(texts, [Some("2".into()), None, Some("3".into())]);
    // Nobody is asked for what is there.
    drop(shelf.proxy.take_seen());
    assert!(shelf.pull(&image).await.unwrap().was_there);
    assert!(shelf.proxy.take_seen().is_empty());
}

#[tokio::test]
async fn of_an_index_the_image_for_this_machine_is_taken() {
    let shelf = Shelf::start("index");
    let mut listed = Vec::new();
    for (arch, text) in [("arm64", "foreign"), ("amd64", "ours")] {
        let image = shelf.publish(&[(PLAIN, layer(&[("a", text)]))], arch, false).await;
        let mut entry = serde_json::to_value(image).unwrap();
        entry["platform"] = json!({ "architecture": arch, "os": "linux" });
        listed.push(entry);
    }
    let index = |entries: &[Value]| json!({ "schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries });
    let pushing = shelf.server.client();
    let both = shelf.push(&pushing, MEDIA_INDEX, &index(&listed), true).await;
    shelf.pull(&both).await.unwrap();
    assert_eq!(shelf.text(&both, "a").as_deref(), Some("ours"));
    let foreign = shelf.push(&pushing, MEDIA_INDEX, &index(&listed[..1]), true).await;
    shelf.refused(&foreign, Class::Refused, "arch").await;
}

#[tokio::test]
async fn a_line_that_breaks_is_taken_up_where_it_broke() {
    let shelf = Shelf::start("broken");
    let packed = gzip(&layer(&[("noise", &noise(300_000))]));
    let length = packed.len() as u64;
    let image = shelf.publish(&[(GZIP, packed)], "amd64", true).await;
    let cut = |cuts| Faults { cut_after: Some(length / 2), cuts, ..Faults::default() };
    shelf.proxy.set(cut(1));
    assert_eq!(shelf.pull(&image).await.unwrap().downloaded, length, "not a byte twice");
    assert_eq!(shelf.text(&image, "noise"), Some(noise(300_000)));

    let layers = [(GZIP, gzip(&layer(&[("x", &noise(200_000))])))];
    let other = shelf.publish(&layers, "amd64", true).await;
    let always = Faults { ranges: Ranges::Whole200, ..cut(u32::MAX) };
    shelf.proxy.set(Faults { cut_after: Some(1000), ..always });
    shelf.refused(&other, Class::CannotKnow, "registry").await;
    shelf.proxy.set(Faults::default());
    shelf.pull(&other).await.unwrap();
}

#[tokio::test]
async fn what_is_not_signed_or_not_what_was_signed_leaves_nothing() {
    let shelf = Shelf::start("refused");
    let good = [(GZIP, gzip(&layer(&[("noise", &noise(100_000))])))];
    let unsigned = shelf.publish(&[(PLAIN, layer(&[("a", "1")]))], "amd64", false).await;
    shelf.refused(&unsigned, Class::Refused, "unsigned").await;
    let foreign = shelf.publish(&good, "arm64", true).await;
    shelf.refused(&foreign, Class::Refused, "arch").await;
    let strange = shelf.publish(&[("application/x", layer(&[]))], "amd64", true).await;
    shelf.refused(&strange, Class::Refused, "layers").await;
    let empty = shelf.publish(&[], "amd64", true).await;
    shelf.refused(&empty, Class::Refused, "layers").await;
    let noise = shelf.publish(&[(GZIP, noise(5000).into_bytes())], "amd64", true).await;
    shelf.refused(&noise, Class::Corrupt, "layer").await;
    let out = shelf.publish(&[(PLAIN, outside())], "amd64", true).await;
    shelf.refused(&out, Class::Corrupt, "layer").await;

    let image = shelf.publish(&good, "amd64", true).await;
    shelf.proxy.set(Faults { alter_blob: true, ..Faults::default() });
    let failure = shelf.pull(&image).await.unwrap_err();
    assert_eq!(failure.class, Class::Corrupt, "{failure}");
    shelf.proxy.set(Faults::default());
    let failure = shelf.pull_named(&format!("{}/{REPOSITORY}:t", shelf.proxy.address())).await;
    assert_eq!(failure.unwrap_err().kind, "reference", "a tag can move");
    let left: Vec<_> = fs::read_dir(&shelf.folder).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    shelf.pull(&image).await.unwrap();
}

/// A layer whose only file lies above the image's root.
fn outside() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    let name = b"../victim";
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    tar.into_inner().unwrap()
}
