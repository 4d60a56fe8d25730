//! The power goes while an update is applied.

use std::time::Duration;

use serde_json::Value;
use vm_tests::machine::Machine;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry, wait};

/// Parts of the stream, in percent, after which the power is cut.
const CUTS: [u64; 3] = [10, 50, 99];

#[test]
fn cut_during_the_stream_boots_what_ran_and_resumes() -> anyhow::Result<()> {
    let registry = Registry::start("cut-stream")?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = Template::of_release("v1")?.start("cut-stream")?;
    machine.route_registry(Some(registry.port()))?;
    for percent in CUTS {
        let ssh = machine.ssh()?;
        let mut client = ssh.spawn("osupdate apply --json", guest::APPLY)?;
        wait_progress(&machine, percent)?;
        machine.power_cut()?;
        client.kill()?;
        client.wait()?;

        machine.power_on()?;
        assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?.0, 1);
        let (_, status) = guest::osupdate(&machine, "status", guest::APPLY)?;
        let other = status.pointer("/other/state").and_then(Value::as_str);
        assert_eq!(other, Some("writing"), "a half-written slot is shown as such: {status}");
        let (code, answer) = guest::osupdate(&machine, "rollback", guest::APPLY)?;
        assert_eq!(code, 2, "a half-written slot is refused: {answer}");
    }
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    let resumed = answer.get("resumed_bytes").and_then(Value::as_u64);
    assert!(resumed > Some(0), "it went on where it stopped: {answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?.0, 2);
    Ok(())
}

fn wait_progress(machine: &Machine, percent: u64) -> anyhow::Result<()> {
    wait::until(&format!("{percent} % of the stream"), guest::APPLY, || {
        let Ok((_, status)) = guest::osupdate(machine, "status", Duration::from_secs(30)) else {
            return Ok(None);
        };
        let number = |name: &str| status.pointer(&format!("/updater/{name}"))?.as_u64();
        let phase = status.pointer("/updater/phase").and_then(Value::as_str);
        let (Some("downloading"), Some(done), Some(total)) =
            (phase, number("done_bytes"), number("total_bytes"))
        else {
            return Ok(None);
        };
        if total == 0 {
            return Ok(None);
        }
        Ok((done * 100 >= total * percent).then_some(()))
    })
}
