//! The power goes while an update is applied.

use std::time::Duration;

use anyhow::Result;
use fault_proxy::{Faults, Proxy};
use serde_json::Value;
use vm_tests::machine::Machine;
use vm_tests::release::Image;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry, wait};

/// After which part of the layer the registry falls silent and the power is cut, in percent; each
/// of what is still to come. The last one is all but the end.
const CUTS: [u64; 3] = [10, 45, 98];
/// After so many looks in a row that see the same number of bytes the stream stands still.
const STILL_LOOKS: u32 = 2;

#[test]
fn cut_during_the_stream_boots_what_ran_and_resumes() -> Result<()> {
    let registry = Registry::start("cut-stream")?;
    let release = artifacts::release("v2")?;
    registry.publish(&release)?;
    let upstream = format!("127.0.0.1:{}", registry.port());
    let mut left = std::fs::metadata(Image::of(&release)?.layer)?.len();
    let mut reached = 0;
    let mut machine = Template::of_release("v1")?.start("cut-stream")?;
    for percent in CUTS {
        let after = left * percent / 100;
        let faults = Faults { cut_after: Some(after), stalls: true, ..Faults::default() };
        let proxy = Proxy::start("127.0.0.1:0", &upstream, faults)?;
        machine.route_registry(Some(proxy.address().port()))?;
        let mut client = machine.ssh()?.spawn("osupdate apply --json", guest::APPLY)?;
        reached = wait_still(&machine, reached)?;
        machine.power_cut()?;
        client.kill()?;
        client.wait()?;
        left -= after;

        machine.power_on()?;
        assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?.0, 1);
        let (_, status) = guest::osupdate(&machine, "status", guest::APPLY)?;
        let other = status.pointer("/other/state").and_then(Value::as_str);
        assert_eq!(other, Some("writing"), "a half-written slot is shown as such: {status}");
        let (code, answer) = guest::osupdate(&machine, "rollback", guest::APPLY)?;
        assert_eq!(code, 2, "a half-written slot is refused: {answer}");
    }
    machine.route_registry(Some(registry.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    let resumed = answer.get("resumed_bytes").and_then(Value::as_u64);
    assert!(resumed > Some(0), "it went on where it stopped: {answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?.0, 2);
    Ok(())
}

/// Waits until the stream is further than `before` and stands still; gives where, in bytes.
fn wait_still(machine: &Machine, before: u64) -> Result<u64> {
    let (mut last, mut looks) = (before, 0);
    wait::asking("the stream to stand still", guest::APPLY, || {
        let Some(done) = done_bytes(machine).filter(|done| *done > before) else {
            return Ok(None);
        };
        looks = if done == last { looks + 1 } else { 0 };
        last = done;
        Ok((looks >= STILL_LOOKS).then_some(done))
    })
}

/// How much of the slot has been written by the running download.
fn done_bytes(machine: &Machine) -> Option<u64> {
    let (_, status) = guest::osupdate(machine, "status", Duration::from_secs(30)).ok()?;
    let phase = status.pointer("/updater/phase").and_then(Value::as_str);
    let done = status.pointer("/updater/done_bytes").and_then(Value::as_u64);
    done.filter(|_| phase == Some("downloading"))
}
