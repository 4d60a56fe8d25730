//! The state partition is full: the machine says so, and everything of the OS works.

use serde_json::Value;
use vm_tests::registry::Registry;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest};

/// Takes every block, those that are kept for root too. Nobody else writes that fast.
const FILL: &str = "mkdir -p /var/fill; i=0; \
    for size in 1G 256M 64M 16M 4M 1M 64K 4K; do \
    while fallocate -l $size /var/fill/$i 2>/dev/null; do i=$((i+1)); done; done; sync; \
    ! head -c 65536 /dev/zero > /var/fill/last 2>/dev/null";
/// What older layouts of containerd would leave on state, damaged.
const GARBAGE: &str = "for it in containerd/io.containerd.metadata.v1.bolt/meta.db \
    containerd/io.containerd.snapshotter.v1.overlayfs/metadata.db containers/meta.db; do \
    mkdir -p $(dirname /var/lib/$it) && head -c 9000 /dev/urandom > /var/lib/$it || exit 1; done";

/// ST-5: apply, the trial's boot, its confirmation, status and rollback need no free byte on state;
/// what fills it is still there for its owner, and once it is gone all is well without a reboot.
/// IN-5: containerd does not look at what lies on state under its names.
#[test]
fn a_full_state_is_said_and_hinders_nothing() -> anyhow::Result<()> {
    let registry = Registry::start("full-state")?;
    registry.publish(&artifacts::release("v2")?)?;
    let mut machine = Template::of_release("v1")?.start("full-state")?;
    machine.route_registry(Some(registry.port()))?;
    machine.ssh()?.run(GARBAGE)?.ok("leave garbage")?;
    machine.ssh()?.run_within(FILL, guest::APPLY)?.ok("fill /var")?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));

    let (_, status) = guest::osupdate(&machine, "status", guest::SSH)?;
    assert_eq!(status.get("state").and_then(Value::as_str), Some("degraded"), "{status}");
    let reason = status.get("state_reason").and_then(Value::as_str).unwrap_or_default();
    assert!(reason.contains("full"), "{status}");
    assert!(machine.serial().contains("the state partition is full"), "not on the console");
    let (code, answer) = guest::osupdate(&machine, "rollback", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    let free = "rm -r /var/fill && head -c 1000000 /dev/zero > /var/room && sync";
    machine.ssh()?.run(free)?.ok("make room")?;
    Ok(())
}
