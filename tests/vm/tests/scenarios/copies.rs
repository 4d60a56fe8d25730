//! RG-10: copies by other tools keep the digest, and the signature where they say so.

use std::fs;

use anyhow::Result;
use vm_tests::host_tool::{run as tool, show};
use vm_tests::registry::{REPOSITORY, Registry, TAG};
use vm_tests::release::Image;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest};

#[test]
fn copies_keep_the_digest_and_a_lost_signature_is_named() -> Result<()> {
    let (first, second) = (Registry::start("copy-1")?, Registry::start("copy-2")?);
    first.publish(&artifacts::release("small")?)?;
    let digest = first.digest(TAG)?;
    let folder = artifacts::work_dir().join("copy-oci");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let in_registry = |registry: &Registry, tag: &str| {
        format!("docker://127.0.0.1:{}/{REPOSITORY}:{tag}", registry.port())
    };
    let in_folder = format!("oci:{}:{TAG}", folder.display());
    skopeo(&["copy", &in_registry(&first, TAG), &in_folder])?;
    skopeo(&["copy", "--preserve-digests", &in_folder, &in_registry(&second, TAG)])?;
    assert_eq!(second.digest(TAG)?, digest);
    let crane = show(&artifacts::foreign_tool("crane")?);
    let name = |registry: &Registry| format!("127.0.0.1:{}/{REPOSITORY}", registry.port());
    let by_crane = format!("{}:by-crane", name(&second));
    tool(&crane, &["copy", "--insecure", &format!("{}:{TAG}", name(&first)), &by_crane])?;
    assert_eq!(second.digest("by-crane")?, digest);

    let machine = Template::of_release("v1")?.start("copies")?;
    machine.route_registry(Some(second.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 2, "{answer}");
    let said = answer.to_string();
    assert!(
        said.contains("cosign copy") || said.contains("oras"),
        "names a copy that keeps it: {said}"
    );

    let signature = Image::of(&artifacts::release("small")?)?.signature_tag();
    skopeo(&["copy", &in_registry(&first, &signature), &in_registry(&second, &signature)])?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    Ok(())
}

/// Two tools that carry the signature along, each from where the release was published. (`cosign copy`
/// takes the tag beside the image and not what refers to it, so not from where `oras` has put it.)
#[test]
fn a_recursive_copy_carries_the_signature_along() -> Result<()> {
    let (first, second) = (Registry::start("oras-1")?, Registry::start("oras-2")?);
    let third = Registry::start("cosign-3")?;
    first.publish(&artifacts::release("small")?)?;
    let name = |registry: &Registry| format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", registry.port());
    let oras = artifacts::foreign_tool("oras")?;
    let options = ["--from-plain-http", "--to-plain-http"];
    let (from, to) = (name(&first), name(&second));
    tool(&show(&oras), &["cp", "-r", options[0], options[1], &from, &to])?;
    assert_eq!(second.digest(TAG)?, first.digest(TAG)?);

    let cosign = artifacts::foreign_tool("cosign")?;
    let key = show(&artifacts::key("update.pub")?);
    let words = ["verify", "--key", &key, "--insecure-ignore-tlog=true", &to];
    tool(&show(&cosign), &words)?;
    tool(&show(&cosign), &["copy", "--allow-http-registry", &from, &name(&third)])?;
    assert_eq!(third.digest(TAG)?, first.digest(TAG)?);

    let machine = Template::of_release("v1")?.start("carried-along")?;
    machine.route_registry(Some(third.port()))?;
    let (code, answer) = guest::osupdate(&machine, "check", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    machine.route_registry(Some(second.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    Ok(())
}

fn skopeo(words: &[&str]) -> Result<String> {
    let mut all = vec!["--insecure-policy"];
    all.extend(words);
    all.extend(["--src-tls-verify=false", "--dest-tls-verify=false"]);
    tool("skopeo", &all)
}
