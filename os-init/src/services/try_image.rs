//! Another image for one service: tried, and kept once it is healthy; else what ran before is put
//! back.
//!
//! | step | a power cut, or the end of the manager, here leaves |
//! |---|---|
//! | the service is started by the new image | what ran before, at the next start: nothing is written yet |
//! | it has been healthy: the choice is stored | either one, whole |
//! | images that nothing names are removed | more images than needed, until the next time |

use super::definitions::{Definition, Definitions};
use super::file::Kind;
use super::gate_facts::PASSED;
use super::orders::Verb;
use super::serve::{Calls, known, on_disk};
use super::upgrade::{self, Upgrade};
use super::{images, wire};
use crate::console::warn;
use std::time::Duration;
use tonic::Status;

/// A daemon has to run on for so long, after it came up and said that it is well.
const STEADY: Duration = Duration::from_secs(10);
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
    let mut definitions = calls.definitions().await?;
    let before = known(&definitions, name)?.clone();
    let target = target(&before, wanted)?;
    allowed(calls, &before, &target).await?;
    if before.chosen() == target && before.set_aside.is_none() {
        let service = calls.shown_of(name);
        if service.as_ref().is_some_and(|it| it.up_s.is_some() || it.state == "done") {
            return Ok(wire::Changed { service, changed: false });
        }
    }
    definitions.run_by(name, &target, &calls.sources);
    let tried = match calls.order_with(name, Verb::Try, definitions).await {
        Ok(_) => steady(calls, &before).await,
        Err(why) => Err(why.message().to_owned()),
    };
    let kept = match tried {
        Ok(()) => keep(calls, &before, &target).await,
        Err(why) => Err(why),
    };
    // By what the files say now, which is the new image or the old one.
    let definitions = calls.definitions().await?;
    let settled = calls.order_with(name, Verb::Renew, definitions).await;
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
fn target(before: &Definition, wanted: &Wanted) -> Result<String, Status> {
    let name = &before.file.name;
    match (wanted, &before.upgrade) {
        (Wanted::Image(image), _) if Some(image) == before.own_image.as_ref() => Ok(String::new()),
        (Wanted::Image(image), _) => Ok(image.clone()),
        // What was set aside is given up: what runs now is what is wanted.
        (Wanted::Previous, _) if before.set_aside.is_some() => Ok(String::new()),
        (Wanted::Previous, Some(upgrade)) => Ok(upgrade.previous.clone()),
        (Wanted::Previous, None) => Err(Status::failed_precondition(format!(
            "{name} runs by what its file says; there is nothing to go back to"
        ))),
    }
}

async fn allowed(calls: &Calls, before: &Definition, target: &str) -> Result<(), Status> {
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
    if !before.enabled {
        return refused(format!("{name} is disabled; `osctl service enable {name}` first"));
    }
    if before.is_gated() && calls.gate() != PASSED {
        return refused(format!(
            "the health gate of this boot has not passed; {name} is not changed before"
        ));
    }
    Ok(())
}

/// Whether it runs on for a while, or why not.
async fn steady(calls: &Calls, before: &Definition) -> Result<(), String> {
    let file = &before.file;
    if file.kind == Kind::Oneshot {
        return Ok(());
    }
    let name = &file.name;
    let gone = || format!("{name} was removed meanwhile");
    let restarts = calls.shown_of(name).ok_or_else(gone)?.restarts;
    let mut left = STEADY;
    while !left.is_zero() {
        tokio::time::sleep(LOOK).await;
        left = left.saturating_sub(LOOK);
        let now = calls.shown_of(name).ok_or_else(gone)?;
        if now.restarts != restarts || now.up_s.is_none() {
            return Err(format!("{name} is {}: {}", now.state, now.reason));
        }
    }
    Ok(())
}

async fn keep(calls: &Calls, before: &Definition, target: &str) -> Result<(), String> {
    let name = before.file.name.clone();
    let own = before.file.with_image(before.own_image.clone());
    let over = upgrade::over(&own, before.built_in, calls.sources.release);
    let upgrade = Upgrade::new(target, before.chosen(), over);
    let folder = calls.sources.folder.clone();
    let _files = calls.files.lock().await;
    let stored = on_disk(move || {
        folder.set_upgrade(&name, &upgrade).map_err(|e| format!("store the choice of {name}: {e}"))
    });
    stored.await.map_err(|why| why.message().to_owned())
}

impl Calls {
    /// Removes images that nothing names any more.
    pub(super) async fn prune(&self) {
        let sources = self.sources.clone();
        let pruned = on_disk(move || {
            let Some(named) = Definitions::load(&sources)?.images() else { return Ok(0) };
            sources.images.prune(&named).map_err(|e| format!("remove unused images: {e}"))
        });
        if let Err(why) = pruned.await {
            warn(why.message());
        }
    }
}
