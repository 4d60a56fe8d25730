//! The same inputs give the same bytes; what differs from its inputs is never signed.

use std::fs;
use std::process::Command;

use crate::inputs::{Inputs, files, succeed};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_builds_in_two_folders_give_the_same_bytes() {
    let inputs = Inputs::new("same", ":");
    for name in ["old", "new"] {
        inputs.secure_boot(name);
    }
    for out in ["one", "far/away/two"] {
        let output = inputs.build(out, &["old", "new"]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let (one, two) = (files(&inputs.at("one")), files(&inputs.at("far/away/two")));
    let names = |files: &[(std::path::PathBuf, Vec<u8>)]| -> Vec<_> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&one), names(&two));
    for ((name, one), (_, two)) in one.iter().zip(&two) {
        assert!(one == two, "{} differs", name.display());
    }
    assert!(one.len() > 10, "{:?}", names(&one));
}

#[test]
fn firmware_that_knows_either_certificate_accepts_every_program() {
    let inputs = Inputs::new("rotated", ":");
    for name in ["old", "new", "stranger"] {
        inputs.secure_boot(name);
    }
    let output = inputs.build("out", &["old", "new"]);
    assert!(output.status.success(), "{}", said(&output));
    let mut extract = crate::inputs::builder();
    extract.arg("extract").arg(inputs.at("out/slot.img")).args(["--part", "uki", "--json"]);
    let facts = succeed(extract.arg("--out").arg(inputs.at("parts")));
    let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    assert_eq!(facts["uki"]["signatures"], 2);

    for program in ["out/recovery.efi", "out/loader.efi", "parts/uki.efi"] {
        let verify = |name: &str| {
            let mut verify = Command::new("sbverify");
            verify.arg("--cert").arg(inputs.at(&format!("{name}.crt"))).arg(inputs.at(program));
            verify
        };
        succeed(&mut verify("old"));
        succeed(&mut verify("new"));
        assert!(!verify("stranger").output().unwrap().status.success(), "{program}");
    }
}

#[test]
fn a_file_system_that_differs_from_its_inputs_is_not_signed() {
    for (name, damage, path) in [
        ("altered", r#"printf jello > "$folder/etc/motd""#, "/etc/motd"),
        ("lost", r#"rm "$folder/usr/bin/tool""#, "/usr/bin/tool"),
        ("more", r#"touch "$folder/usr/bin/more""#, "paths instead of"),
        ("other", r#"ln -sf tool "$folder/usr/sbin/init""#, "/usr/sbin/init"),
    ] {
        let inputs = Inputs::new(name, damage);
        let output = inputs.build("out", &[]);
        assert!(!output.status.success(), "{name}");
        let said = said(&output);
        assert!(said.contains(path) && said.contains("finished erofs"), "{name}: {said}");
        for made in ["oci", "recovery.efi", "loader.efi", "build.json"] {
            assert!(!inputs.at("out").join(made).exists(), "{name}: {made}");
        }
    }
}

#[test]
fn a_package_that_is_gone_names_the_lock_to_refresh() {
    for (file, suite) in [("root", "packages"), ("tools", "tools")] {
        let inputs = Inputs::new(&format!("gone-{suite}"), ":");
        fs::remove_file(inputs.at(&format!("site/pool/{file}_1_amd64.deb"))).unwrap();
        let output = inputs.build("out", &[]);
        let said = said(&output);
        let command = format!("`image-builder lock {} --update`", inputs.at("spec.toml").display());
        assert!(said.contains(&format!("{file} 1 is gone")) && said.contains(&command), "{said}");
    }
}
