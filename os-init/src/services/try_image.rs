//! Another image for one service: tried, and kept once it is healthy; else what ran before is put
//! back.
//!
//! | step | a power cut, or the end of the manager, here leaves |
//! |---|---|
//! | the service is started by the new image | what ran before, at the next start: nothing is written yet |
//! | it has been healthy: the choice is stored | either one, whole |
//! | images that nothing names are removed | more images than needed, until the next time |

use super::definitions::{Definition, Definitions, Missing};
use super::file::Kind;
use super::gate_facts::PASSED;
use super::serve::{Calls, known, on_disk};
use super::upgrade::{self, Upgrade};
use super::{images, resolv, wire};
use crate::console::warn;
use crate::control::{self, WAITING};
use std::time::{Duration, Instant, SystemTime};
use tonic::Status;

/// A daemon has to run on for so long, after it came up and said that it is well.
const STEADY: Duration = Duration::from_secs(10);
/// For a service that the health gate waits for, the gate has to pass once more within this.
const GATE_MAX: Duration = Duration::from_secs(180);
/// The network is up again after so long, or not at all: a lease takes seconds.
const NETWORK_MAX: Duration = Duration::from_secs(45);
/// A trial that is not over after this is over: a oneshot that takes longer cannot be upgraded.
const TRIAL_MAX: Duration = Duration::from_secs(3600);
/// The service that sets up the network.
const NETWORK: &str = "network";
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// This image; empty for what the service's file says.
    Image(String),
    /// What ran before the last change; where that was set aside, what runs now, for good.
    Previous,
}

/// Runs the service `name` by what is `wanted`. To be awaited in a task of its own: a caller who goes
/// away must not leave a service on trial.
///
/// # Errors
/// A rule says no, or it was tried, did not get healthy, and was put back.
pub(super) async fn try_image(
    calls: &Calls,
    name: &str,
    wanted: &Wanted,
) -> Result<wire::Changed, Status> {
    let busy = |_| Status::failed_precondition("another service is being changed; try again");
    let _turn = calls.trying.try_lock().map_err(busy)?;
    let definitions = calls.definitions().await?;
    let before = known(&definitions, name)?.clone();
    let gone = || Status::not_found(format!("{name} was removed meanwhile"));
    let now = calls.shown_of(name).ok_or_else(gone)?;
    let target = target(&before, &now, wanted)?;
    allowed(calls, &before, &now, &target).await?;
    let runs = now.up_s.is_some() || now.state == "done";
    if before.chosen() == target && now.set_aside.is_empty() && runs {
        return Ok(wire::Changed { service: Some(now), changed: false });
    }
    let network = Network::before(name);
    let tried = tokio::time::timeout(TRIAL_MAX, async {
        let started = calls.order_trial(name, &target).await;
        let started = started.map_err(|why| why.message().to_owned())?;
        // What ran on all the time has nothing to set up again.
        steady(calls, &before, network.as_ref().filter(|_| started)).await?;
        keep(calls, &before, &target).await
    });
    let kept = tried.await.unwrap_or_else(|_| {
        Err(format!("it is not healthy within {} minutes", TRIAL_MAX.as_secs() / 60))
    });
    let settled = calls.order_settled(name, kept.is_ok()).await;
    let shown = if target.is_empty() { "its own root" } else { &target };
    match (kept, settled) {
        (Ok(()), settled) => {
            calls.prune().await;
            let service = settled?.service;
            Ok(wire::Changed { service, changed: true })
        }
        (Err(why), Ok(_)) => {
            Err(Status::aborted(format!("{shown} is not kept: {why}; {name} runs as before")))
        }
        (Err(why), Err(also)) => Err(Status::aborted(format!(
            "{shown} is not kept: {why}; nor does {name} run as before: {}",
            also.message()
        ))),
    }
}

/// What the service shall run by, in the words of a choice.
fn target(before: &Definition, now: &wire::Service, wanted: &Wanted) -> Result<String, Status> {
    let name = &before.file.name;
    match (wanted, &before.upgrade) {
        (Wanted::Image(image), _) if Some(image) == before.own_image.as_ref() => Ok(String::new()),
        (Wanted::Image(image), _) => Ok(image.clone()),
        // What was set aside is given up: what runs now is what is wanted.
        (Wanted::Previous, _) if !now.set_aside.is_empty() => Ok(String::new()),
        (Wanted::Previous, Some(upgrade)) => Ok(upgrade.previous.clone()),
        (Wanted::Previous, None) => Err(Status::failed_precondition(format!(
            "{name} runs by what its file says; there is nothing to go back to"
        ))),
    }
}

async fn allowed(
    calls: &Calls,
    before: &Definition,
    now: &wire::Service,
    target: &str,
) -> Result<(), Status> {
    let name = &before.file.name;
    let refused = |why: String| Err(Status::failed_precondition(why));
    if !target.is_empty() {
        if images::digest(target).is_none() {
            let why = format!("{target} is not registry/repository@sha256:<64 hex digits>");
            return Err(Status::invalid_argument(why));
        }
        let (images, image) = (calls.sources.images.clone(), target.to_owned());
        if !on_disk(move || Ok(images.has(&image))).await? {
            return refused(format!(
                "{target} is not on this machine; `osctl service pull {target}`"
            ));
        }
    }
    // Without its image it is down too, and another one mends that.
    let waits_for_image = matches!(before.missing, Some(Missing::Image(_)));
    if let (Some(missing), false) = (&before.missing, waits_for_image) {
        return refused(format!("{name}: {missing}"));
    }
    if !before.enabled {
        return refused(format!("{name} is disabled; `osctl service enable {name}` first"));
    }
    if now.state == "stopped" && !waits_for_image {
        return refused(format!("{name} is stopped; `osctl service start {name}` first"));
    }
    if before.is_gated() && on_disk(|| Ok(is_open())).await? {
        return refused(format!("this boot is not confirmed yet; {name} is not changed before"));
    }
    Ok(())
}

/// Whether PID 1 still waits for the health gate's verdict on this boot. Where it does not answer,
/// there are other worries.
fn is_open() -> bool {
    let answer = control::ask(&control::Request::Status).unwrap_or_default();
    let status: Option<control::Status> = serde_json::from_str(&answer).ok();
    status.is_none_or(|status| status.gate == WAITING)
}

/// Whether it runs on for a while, and the machine is as healthy with it as the health gate wants; or
/// why not.
async fn steady(
    calls: &Calls,
    before: &Definition,
    network: Option<&Network>,
) -> Result<(), String> {
    let file = &before.file;
    if file.kind != Kind::Daemon {
        return Ok(());
    }
    let name = &file.name;
    let gone = || format!("{name} was removed meanwhile");
    let restarts = calls.shown_of(name).ok_or_else(gone)?.restarts;
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = calls.shown_of(name).ok_or_else(gone)?;
        let seen = Seen {
            up: begun.elapsed(),
            ran_on: now.restarts == restarts && now.up_s.is_some(),
            gate: before.is_gated().then(|| calls.gate()),
            network: network.map(Network::is_up_again),
        };
        match judge(&seen) {
            Judged::Healthy => return Ok(()),
            Judged::Open => {}
            Judged::Ended => return Err(format!("{name} is {}: {}", now.state, now.reason)),
            Judged::Unhealthy(why) => {
                return Err(format!("with it the machine is not healthy: {why}"));
            }
        }
    }
}

/// What is seen of a daemon on trial.
#[derive(Debug, Clone)]
struct Seen {
    /// Since it came up and was well.
    up: Duration,
    /// It has not ended since.
    ran_on: bool,
    /// What the health gate says, for a service that it waits for.
    gate: Option<String>,
    /// Whether the network is up as it was, for the service that sets it up.
    network: Option<bool>,
}

/// What that comes to.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// Not to be said yet.
    Open,
    /// It is kept.
    Healthy,
    /// It ended, which is told of it.
    Ended,
    /// It runs, and that is not enough: why.
    Unhealthy(String),
}

fn judge(seen: &Seen) -> Judged {
    let is_gate_good = seen.gate.as_ref().is_none_or(|gate| gate == PASSED);
    let is_network_up = seen.network.unwrap_or(true);
    match seen {
        Seen { ran_on: false, .. } => Judged::Ended,
        Seen { up, .. } if *up < STEADY => Judged::Open,
        _ if is_gate_good && is_network_up => Judged::Healthy,
        Seen { up, .. } if !is_network_up && *up >= NETWORK_MAX => {
            Judged::Unhealthy("the network is not up as it was".into())
        }
        Seen { up, gate: Some(gate), .. } if *up >= GATE_MAX => Judged::Unhealthy(gate.clone()),
        _ => Judged::Open,
    }
}

/// How the network stood before the service that sets it up was changed.
struct Network {
    state: String,
    since: SystemTime,
}

impl Network {
    /// For the service of that name only.
    fn before(name: &str) -> Option<Self> {
        let state = (name == NETWORK).then(operational)??;
        Some(Self { state, since: SystemTime::now() })
    }

    /// Whether networkd has said since then that it stands as well.
    fn is_up_again(&self) -> bool {
        let written = std::fs::metadata(resolv::NETWORKD).and_then(|it| it.modified());
        written.is_ok_and(|at| at > self.since) && operational().as_ref() == Some(&self.state)
    }
}

fn operational() -> Option<String> {
    let text = std::fs::read_to_string(resolv::NETWORKD).ok()?;
    resolv::operational(&text).map(str::to_owned)
}

async fn keep(calls: &Calls, before: &Definition, target: &str) -> Result<(), String> {
    let name = before.file.name.clone();
    let own = before.file.with_image(before.own_image.clone());
    let over = upgrade::over(&own, before.built_in, calls.sources.release);
    // Once more by the same: the way back stays what it was.
    let previous = match &before.upgrade {
        Some(upgrade) if before.chosen() == target => &upgrade.previous,
        _ => before.chosen(),
    };
    let upgrade = Upgrade::new(target, previous, over);
    let folder = calls.sources.folder.clone();
    let _files = calls.files.lock().await;
    let stored = on_disk(move || {
        folder.set_upgrade(&name, &upgrade).map_err(|e| format!("store the choice of {name}: {e}"))
    });
    stored.await.map_err(|why| why.message().to_owned())
}

impl Calls {
    /// Removes images that nothing names any more and nothing runs by. Whoever calls holds
    /// [`Self::trying`]: nothing is on trial then.
    pub(super) async fn prune(&self) {
        let sources = self.sources.clone();
        let running = self.images_that_run();
        let pruned = on_disk(move || {
            let Some(mut named) = Definitions::load(&sources)?.images() else { return Ok(0) };
            named.extend(running);
            sources.images.prune(&named).map_err(|e| format!("remove unused images: {e}"))
        });
        if let Err(why) = pruned.await {
            warn(why.message());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_is_not_enough_for_what_the_machine_is_reached_by() {
        let seen = |up: Duration, gate: Option<&str>, network: Option<bool>| {
            judge(&Seen { up, ran_on: true, gate: gate.map(str::to_owned), network })
        };
        let second = Duration::from_secs(1);
        assert_eq!(seen(STEADY - second, None, None), Judged::Open);
        assert_eq!(seen(STEADY, None, None), Judged::Healthy);
        let (passed, waits) = (Some(PASSED), Some("sshd does not answer"));
        assert_eq!(seen(STEADY, passed, None), Judged::Healthy);
        assert_eq!(seen(GATE_MAX - second, waits, None), Judged::Open);
        let why = Judged::Unhealthy("sshd does not answer".into());
        assert_eq!(seen(GATE_MAX, waits, None), why);
        assert_eq!(seen(NETWORK_MAX - second, passed, Some(false)), Judged::Open);
        let deaf = Judged::Unhealthy("the network is not up as it was".into());
        assert_eq!(seen(NETWORK_MAX, passed, Some(false)), deaf);
        assert_eq!(seen(STEADY, passed, Some(true)), Judged::Healthy);
        let ended = Seen { up: STEADY, ran_on: false, gate: None, network: None };
        assert_eq!(judge(&ended), Judged::Ended);
    }
}
