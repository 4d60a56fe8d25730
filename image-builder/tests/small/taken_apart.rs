//! A release is taken apart into what it was made of, or not at all.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::inputs::{Inputs, builder, files, succeed};

fn built(name: &str) -> Inputs {
    let inputs = Inputs::new(name, ":");
    let output = inputs.build("out", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    inputs
}

fn extract(source: &Path, out: &Path) -> Output {
    builder().arg("extract").arg(source).arg("--out").arg(out).output().unwrap()
}

#[test]
fn a_layout_and_its_slot_give_the_same_parts() {
    let inputs = built("parts");
    let slot = fs::read(inputs.at("out/slot.img")).unwrap();
    // As it lies in a partition: longer than itself.
    fs::write(inputs.at("partition"), [&slot[..], &[9; 10_000]].concat()).unwrap();
    for (source, out) in [
        ("out/oci", "from-layout"),
        ("out", "from-build"),
        ("out/slot.img", "from-slot"),
        ("partition", "from-partition"),
    ] {
        let output = extract(&inputs.at(source), &inputs.at(out));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let part = |name: &str| fs::read(inputs.at(out).join(name)).unwrap();
        assert!(part("slot.img") == slot, "{source}");
        let (root, verity) = (part("root.erofs"), part("root.verity"));
        assert!(slot.starts_with(&[root.clone(), verity.clone()].concat()), "{source}");
        assert!(part("uki.efi").starts_with(b"MZ"), "{source}");
        assert_eq!(files(&inputs.at(out)).len(), 5, "{source}");

        let facts: Value = serde_json::from_slice(&part("facts.json")).unwrap();
        let report: Value =
            serde_json::from_slice(&fs::read(inputs.at("out/build.json")).unwrap()).unwrap();
        assert_eq!(facts["trailer"]["root_hash"], report["root_hash"]);
        assert_eq!(facts["trailer"]["release"], 7);
        assert_eq!(facts["uki"]["command_line"], "console=ttyS0 gpt");
        if source.starts_with("out/slot") || source == "partition" {
            assert_eq!(facts["image"], Value::Null);
        } else {
            assert_eq!(facts["image"]["digest"], report["digest"]);
        }
    }
    // Stock tools agree that the tree is that of the file system.
    let facts = fs::read(inputs.at("from-slot/facts.json")).unwrap();
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    let mut verify = std::process::Command::new("veritysetup");
    verify.arg("verify").arg(inputs.at("from-slot/root.erofs"));
    verify.arg(inputs.at("from-slot/root.verity"));
    succeed(verify.arg(facts["trailer"]["root_hash"].as_str().unwrap()));
}

#[test]
fn only_the_parts_that_were_asked_for_are_written_and_none_is_overwritten() {
    let inputs = built("some");
    let mut some = builder();
    some.arg("extract").arg(inputs.at("out")).args(["--part", "uki,facts"]);
    succeed(some.arg("--out").arg(inputs.at("some")));
    let found = files(&inputs.at("some"));
    let names: Vec<_> = found.iter().map(|(name, _)| name.to_str().unwrap()).collect();
    assert_eq!(names, ["facts.json", "uki.efi"]);
    let again = extract(&inputs.at("out"), &inputs.at("some"));
    assert!(!again.status.success());
    assert_eq!(fs::read(inputs.at("some/uki.efi")).unwrap(), found[1].1);
}

#[test]
fn an_altered_byte_anywhere_is_found_and_nothing_is_written() {
    let inputs = built("altered-byte");
    let slot = inputs.at("out/slot.img");
    let facts = succeed(
        builder()
            .arg("extract")
            .arg(&slot)
            .args(["--part", "facts", "--json"])
            .args(["--out", inputs.at("facts").to_str().unwrap()]),
    );
    let facts: Value = serde_json::from_str(&facts).unwrap();
    let at = |part: &str, field: &str| facts[part][field].as_u64().unwrap();
    for (what, place, reason) in [
        ("header", 20, "header"),
        ("file system", 9000, "the file system is not"),
        ("superblock", at("trailer", "data_size") + 100, "the verity tree is not"),
        ("tree", at("trailer", "data_size") + 5000, "the verity tree is not"),
        ("kernel image", at("trailer", "uki_at") + 500, "kernel image"),
        ("trailer", at("header", "trailer_at") + 50, "trailer"),
    ] {
        let output = with_altered_byte(&slot, place, || extract(&slot, &inputs.at("altered")));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(reason), "{what}: {said}");
        assert_eq!(files(&inputs.at("altered")).len(), 0, "{what}");
    }
    let blobs = files(&inputs.at("out/oci/blobs/sha256"));
    let (layer, _) = blobs.iter().max_by_key(|(_, content)| content.len()).unwrap();
    let layer = inputs.at("out/oci/blobs/sha256").join(layer);
    let output =
        with_altered_byte(&layer, 700, || extract(&inputs.at("out"), &inputs.at("altered")));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is not what its name says"), "{said}");
    assert_eq!(files(&inputs.at("altered")).len(), 0);
}

/// A slot whose parts all fit together, in an image that promises another one.
#[test]
fn an_image_must_promise_the_slot_that_it_holds() {
    let inputs = built("promise");
    let image_builder_key = update_manifest::sign::SigningKey::from_entropy(&[4; 32]).unwrap();
    let whole = image_builder::slot::check(&inputs.at("out/slot.img")).unwrap();
    let labels = |release, root_hash| partition_layout::labels::ImageLabels {
        product: "bascule".into(),
        kind: "os".into(),
        arch: "x86_64".into(),
        release,
        secver: 2,
        min_from: 0,
        requires: Vec::new(),
        version: "0.7.0".into(),
        slot_size: 0,
        slot_sha256: [0; 32],
        root_hash,
    };
    for (name, labels, label) in [
        ("release", labels(8, whole.trailer.root_hash), "label release"),
        ("root", labels(7, [1; 32]), "label slot.root-hash"),
    ] {
        let recipe = image_builder::oci::Recipe {
            slot: &inputs.at("out/slot.img"),
            labels,
            created: "2026-01-01T00:00:00Z",
            level: 3,
            cache: None,
            key: &image_builder_key,
            reference: "bascule/os",
        };
        image_builder::oci::write(&recipe, &inputs.at(name), &|_| ()).unwrap();
        let output = extract(&inputs.at(name), &inputs.at("nothing"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(label), "{said}");
        assert_eq!(files(&inputs.at("nothing")).len(), 0);
    }
}

/// Runs `look` while one byte of the file is another.
fn with_altered_byte<T>(path: &Path, place: u64, look: impl FnOnce() -> T) -> T {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    let seen = look();
    file.write_all_at(&byte, place).unwrap();
    seen
}
