//! HG-1: a trial boot without network, or with one that answers nonsense, is confirmed on what the
//! machine itself can show.

use fault_proxy::{Faults, Proxy, Refusal};
use vm_tests::machine::{Machine, Options};
use vm_tests::registry::SOURCE;
use vm_tests::stopped::Stopped;
use vm_tests::template::Template;
use vm_tests::{guest, wait};

#[test]
fn a_trial_with_the_cable_out_is_confirmed() -> anyhow::Result<()> {
    let mut machine = Machine::start(Options::new("link-down", &Stopped::armed()?.disk()))?;
    machine.set_link(false)?;
    machine.wait_serial(guest::CONFIRMED, guest::BOOT)?;
    machine.set_link(true)?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    Ok(())
}

/// No lease, no name server, no time, no registry: all of them are silent, and the link is up.
#[test]
fn a_trial_on_a_silent_network_is_confirmed() -> anyhow::Result<()> {
    let armed = Stopped::armed()?.disk();
    let options = Options { alone: true, ..Options::new("silent", &armed) };
    let mut machine = Machine::start(options)?;
    machine.wait_serial(&format!("{}: slot B", guest::CONFIRMED), guest::BOOT)
}

#[test]
fn a_trial_with_a_registry_that_answers_503_is_confirmed() -> anyhow::Result<()> {
    let refusal =
        Refusal { path: String::new(), status: 503, retry_after: None, html: true, times: 0 };
    let faults = Faults { refusal: Some(refusal), ..Faults::default() };
    let proxy = Proxy::start("127.0.0.1:0", "127.0.0.1:9", faults)?;
    trial_with_source("registry-503", SOURCE, Some(proxy.address().port()))?;
    assert!(!proxy.take_seen().is_empty(), "the trial never asked the registry");
    Ok(())
}

#[test]
fn a_trial_with_dead_names_is_confirmed() -> anyhow::Result<()> {
    trial_with_source("names-dead", "registry.invalid/bascule/os:stable", None)
}

/// Has the trial of release 2 look for updates in `source`, where there is no answer.
fn trial_with_source(name: &str, source: &str, port: Option<u16>) -> anyhow::Result<()> {
    let mut machine = Template::armed()?.start(name)?;
    let edit = format!(
        "sed -i -e 's|^source = .*|source = \"{source}\"|' -e 's|^policy = .*|policy = \"check\"|' \
         -e '/^policy/a interval_s = 10' /var/lib/bascule/config.toml && sync"
    );
    machine.ssh()?.run(&edit)?.ok("edit the configuration")?;
    machine.route_registry(port)?;
    assert_eq!(guest::reboot_confirmed(&mut machine)?, (2, "b".to_owned()));
    wait::asking("the daemon to say that it cannot know", guest::BOOT, || {
        let (_, status) = guest::osupdate(&machine, "status", guest::SSH)?;
        Ok(status.to_string().contains("cannot-know").then_some(()))
    })
}
