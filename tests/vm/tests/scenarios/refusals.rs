//! Images that must not get in. What can be known before the slot is touched is refused there;
//! the rest before the flip. The message says which; what runs is untouched.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use partition_layout::frames::{FRAME_SIZE, FrameTable};
use serde_json::Value;
use vm_tests::machine::Machine;
use vm_tests::registry::{REPOSITORY, Registry, TAG};
use vm_tests::release::Image;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, wait};

/// Exit codes of osupdate.
const REFUSED: i32 = 2;
const CANNOT_KNOW: i32 = 3;
const CORRUPT: i32 = 4;
/// More than a slot holds.
const OVERSIZE: u64 = 3 << 30;

#[test]
fn what_the_manifest_gives_away_is_refused_before_the_slot_is_touched() -> Result<()> {
    let registry = Registry::start("refusals")?;
    let machine = Template::of_release("v1")?.start("refusals")?;
    machine.route_registry(Some(registry.port()))?;
    let before = other_slot(&machine)?;
    let (ours, stranger) = (artifacts::key("update.key")?, artifacts::key("stranger.key")?);
    let good = Image::of(&artifacts::release("small")?)?;

    refused(&machine, &registry, &good, "unsigned")?;

    let mut wrong_key = good.clone();
    wrong_key.sign(&stranger)?;
    refused(&machine, &registry, &wrong_key, "wrong-key")?;

    // Somebody else's signature, moved to where ours would be.
    let mut altered = good.clone();
    let mut signature = good.signature(&ours)?;
    altered.edit_manifest(|manifest| manifest["annotations"]["note"] = "altered".into())?;
    signature.tag = altered.signature_tag();
    altered.signatures.push(signature);
    refused(&machine, &registry, &altered, "wrong-subject")?;

    for (label, value, kind) in [
        ("org.bascule.arch", "arm64", "arch"),
        ("org.bascule.product", "toaster", "product"),
        // Its frames are those of a smaller slot.
        ("org.bascule.slot.size", "3221225472", "not-a-release"),
        ("org.bascule.requires", "[\"warp-drive\"]", "requires"),
    ] {
        let mut image = good.clone();
        image.set_label(label, value)?;
        image.sign(&ours)?;
        refused(&machine, &registry, &image, kind)?;
    }
    let mut oversized = good.clone();
    oversized.set_label("org.bascule.slot.size", &OVERSIZE.to_string())?;
    let frames = vec![1000; usize::try_from(OVERSIZE / FRAME_SIZE)?];
    let table = FrameTable { head: 0, slot: frames, tail: 0 }.encode_slot();
    oversized.edit_manifest(|manifest| {
        manifest["layers"][0]["annotations"]["org.bascule.frames"] = table.into();
    })?;
    oversized.sign(&ours)?;
    refused(&machine, &registry, &oversized, "too-large")?;
    assert_eq!(other_slot(&machine)?, before, "the other slot was touched");
    Ok(())
}

#[test]
fn a_damaged_layer_is_found_before_the_flip() -> Result<()> {
    let registry = Registry::start("damaged")?;
    let machine = Template::of_release("v1")?.start("damaged")?;
    machine.route_registry(Some(registry.port()))?;
    let mut image = Image::of(&artifacts::release("small")?)?;
    image.sign(&artifacts::key("update.key")?)?;
    registry.publish_image(&image)?;
    let manifest: Value = serde_json::from_slice(&image.manifest)?;
    let digest = manifest.pointer("/layers/0/digest").and_then(Value::as_str);
    let blob = registry.blob_file(digest.context("layer without digest")?);
    let whole = fs::read(&blob)?;

    let middle = whole.len() as u64 / 2;
    File::options().write(true).open(&blob)?.write_all_at(&[0xa5; 64], middle)?;
    damaged(&machine, CORRUPT, "not what the release describes")?;

    // The registry has not got what it was given: its fault, and it may mend.
    fs::write(&blob, whole.get(..whole.len() / 2).unwrap_or_default())?;
    damaged(&machine, CANNOT_KNOW, &format!("instead of {}", whole.len()))?;

    fs::write(&blob, &whole)?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    ensure!(code == 0, "whole again, it is taken: {code} {answer}");
    Ok(())
}

#[test]
fn a_tag_that_moves_during_an_apply_changes_nothing() -> Result<()> {
    let registry = Registry::start("tag-moves")?;
    registry.publish(&artifacts::release("small")?)?;
    let first = registry.digest(TAG)?;
    let machine = Template::of_release("v1")?.start("tag-moves")?;
    machine.route_registry(Some(registry.port()))?;
    let client = machine.ssh()?.spawn("osupdate apply --json", guest::APPLY)?;
    wait::until("the layer to be asked for", guest::APPLY, || {
        let asked = registry.log().contains(&format!("GET /v2/{REPOSITORY}/blobs/"));
        Ok(asked.then_some(()))
    })?;
    registry.publish(&artifacts::release("unhealthy")?)?;
    let output = client.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let (_, status) = guest::osupdate(&machine, "status", guest::APPLY)?;
    assert!(status.to_string().contains(&first), "{first} is what was verified: {status}");
    Ok(())
}

/// Publishes `image` and expects a refusal of this `kind`, in words that people understand.
fn refused(machine: &Machine, registry: &Registry, image: &Image, kind: &str) -> Result<()> {
    registry.publish_image(image)?;
    let (code, answer) = guest::osupdate(machine, "apply", guest::APPLY)?;
    let found = answer.pointer("/error/kind").and_then(Value::as_str);
    ensure!(code == REFUSED && found == Some(kind), "expected {kind}: {code} {answer}");
    let message = answer.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.len() > kind.len(), "no message for people: {answer}");
    Ok(())
}

fn damaged(machine: &Machine, expected: i32, said: &str) -> Result<()> {
    let (code, answer) = guest::osupdate(machine, "apply", guest::APPLY)?;
    ensure!(code == expected, "expected {expected}: {code} {answer}");
    let message = answer.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains(said), "does not say `{said}`: {answer}");
    let (_, status) = guest::osupdate(machine, "status", guest::APPLY)?;
    let trial = status.get("trial").cloned().unwrap_or_default();
    ensure!(trial.is_null(), "a damaged layer is armed: {status}");
    ensure!(guest::running(machine)?.0 == 1, "what runs changed");
    Ok(())
}

fn other_slot(machine: &Machine) -> Result<Value> {
    let (_, status) = guest::osupdate(machine, "status", guest::APPLY)?;
    status.get("other").cloned().context("status without the other slot")
}
