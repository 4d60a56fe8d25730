//! Bad releases: services that never get healthy, a kernel that panics, a kernel that hangs.
//! Each time the machine comes back by itself and says why.

use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry};

/// Applies `release`, reboots, waits for release 1, and checks that the digest is held for `why`.
fn comes_back(release: &str, why: &str) -> anyhow::Result<()> {
    let registry = Registry::start(release)?;
    registry.publish(&artifacts::release(release)?)?;
    let mut machine = Template::of_release("v1")?.start(&format!("back-{release}"))?;
    machine.route_registry(Some(registry.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    let boot = guest::boot_id(&machine)?;
    guest::reboot(&machine)?;
    guest::wait_back(&mut machine, &boot, 1, guest::FALL_BACK)?;

    let digest = registry.digest(vm_tests::registry::TAG)?;
    let (_, status) = guest::osupdate(&machine, "status", guest::APPLY)?;
    let text = status.to_string();
    assert!(text.contains(why), "status does not say {why}: {text}");
    let (_, history) = guest::osupdate(&machine, "history", guest::APPLY)?;
    assert!(history.to_string().contains(&digest), "{history}");
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (1, "a".to_owned()));
    Ok(())
}

#[test]
fn services_that_never_get_healthy() -> anyhow::Result<()> {
    comes_back("unhealthy", "health gate failed")
}

#[test]
fn a_kernel_that_panics() -> anyhow::Result<()> {
    comes_back("panic", "all tries used")
}

#[test]
fn a_kernel_that_hangs_is_ended_by_the_watchdog() -> anyhow::Result<()> {
    comes_back("hang", "all tries used")
}
