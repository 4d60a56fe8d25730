//! Running an order, and writing down what came of it.

use std::sync::Arc;

use partition_layout::boot_state::Action;
use update_manifest::digest::Digest;

use super::{Daemon, idle, peak_rss_bytes};
use crate::engine::install::{Install, Progress, Report, open_registry};
use crate::engine::perform::{RolledBack, roll_back};
use crate::engine::plan::{Goal, Order, Outcome};
use crate::failure::{Class, Failure};
use crate::history::Entry;
use crate::outcome::Pending;
use crate::registry::Reference;
use crate::registry::transport::Patience;
use crate::wire;

impl Daemon {
    /// Carries out `order` for `source`, the configured one where it is `None`.
    ///
    /// # Errors
    /// Only what keeps it from beginning; how it ended is in the report.
    pub async fn install(
        &self,
        order: Order,
        source: Option<Reference>,
    ) -> Result<(Reference, Report), Failure> {
        let _held = self.busy.try_lock().map_err(|_| {
            Failure::refused("busy", "an update is in progress; `osupdate status` shows it")
        })?;
        let settings = self.settings();
        let source = source.or_else(|| settings.source.clone()).ok_or_else(|| {
            Failure::refused(
                "no-source",
                "no update source; set source = \"registry/repository:tag\" in the [update] \
                 section of the config",
            )
        })?;
        let registry = open_registry(&settings, &source, Patience::FIELD)?;
        let progress = self.progress.clone();
        let tell = Arc::new(move |now: Progress| {
            progress.send_replace(now);
        });
        let install = Install::new(&self.site, registry, source.clone(), tell);
        let report = install.run(order).await;
        self.progress.send_replace(idle());
        self.write_down(order, &report);
        Ok((source, report))
    }

    fn write_down(&self, order: Order, report: &Report) {
        let entry = |event: &str| Entry {
            event: event.to_owned(),
            digest: report.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            release: report.release,
            version: report.version.clone(),
            slot: self.site.running.other().word().to_owned(),
            ..Entry::default()
        };
        match &report.result {
            Ok(Outcome::Armed) => {
                let armed = entry("armed");
                let pending = Pending {
                    target: armed.slot.clone(),
                    digest: armed.digest.clone(),
                    release: armed.release,
                    version: armed.version.clone(),
                    boot_id: self.site.boot.boot_id.clone(),
                };
                self.remember(&pending);
                self.note(armed);
            }
            Ok(Outcome::Sealed) => self.note(entry("sealed")),
            Ok(_) => {}
            // Looking changes nothing, so its failures are status, not history.
            Err(_) if order.goal == Goal::Look => {}
            Err(failure) => {
                let this = (failure.kind.clone(), entry("").digest);
                let known = self.with_look(|look| {
                    let known = look.noted.as_ref() == Some(&this);
                    look.noted = Some(this);
                    known
                });
                if !known {
                    let fault = fault_word(failure).to_owned();
                    self.note(Entry { fault, reason: failure.message.clone(), ..entry("failed") });
                }
            }
        }
    }

    /// What a report says on the wire.
    #[must_use]
    pub fn report(&self, source: &Reference, report: &Report) -> wire::Report {
        let (outcome, error) = match &report.result {
            Ok(outcome) => (outcome.word().to_owned(), None),
            Err(failure) => ("failed".to_owned(), Some(on_wire(failure))),
        };
        let next = match &report.result {
            Ok(Outcome::Available) => "osupdate apply",
            Ok(Outcome::Sealed | Outcome::AlreadySealed) => "osupdate apply",
            Ok(Outcome::Armed | Outcome::AlreadyArmed) => "reboot",
            Ok(Outcome::Running | Outcome::NotNewer) => "",
            Err(failure) if failure.kind == "quarantined" => "osupdate retry",
            Err(failure) if failure.class == Class::CannotKnow => "osupdate apply",
            Err(_) => "osupdate status",
        };
        wire::Report {
            outcome,
            source: source.to_string(),
            digest: report.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            release: report.release,
            version: report.version.clone(),
            slot: self.site.running.other().word().to_owned(),
            key: report.key.clone(),
            downloaded_bytes: report.downloaded,
            resumed_bytes: report.resumed,
            seconds: report.took.as_secs_f64(),
            updater_peak_rss_bytes: peak_rss_bytes(),
            error,
            next: next.to_owned(),
        }
    }

    /// What was armed is armed: where the state partition takes no note of it, only the history
    /// will lack its end.
    fn remember(&self, pending: &Pending) {
        if let Err(failure) = self.pending.write(pending) {
            eprintln!("osupdated: {failure}");
        }
    }

    /// Back to the other slot: takes an armed or running trial back, or arms the other slot after
    /// it was read and found whole. Does not reboot.
    ///
    /// # Errors
    /// A refusal of the record's rules, or a slot that is not whole.
    pub async fn roll_back(&self) -> Result<wire::RollbackAnswer, Failure> {
        let _held = self.busy.try_lock().map_err(|_| {
            Failure::refused("busy", "an update is in progress; `osupdate status` shows it")
        })?;
        let running = self.site.running;
        let site = self.site.clone();
        let RolledBack { action, before, after } =
            tokio::task::spawn_blocking(move || roll_back(&site))
                .await
                .map_err(|_| Failure::new(Class::System, "engine", "reading the slot stopped"))??;
        let to = after.trial.unwrap_or(if before.trial == Some(running) {
            running.other()
        } else {
            running
        });
        let slot = after.slot(to);
        let digest = Digest(slot.digest).to_string();
        self.pending.clear();
        if after.trial.is_some() {
            let pending = Pending {
                target: to.word().to_owned(),
                digest: digest.clone(),
                release: slot.release,
                version: String::new(),
                boot_id: self.site.boot.boot_id.clone(),
            };
            self.remember(&pending);
        }
        self.note(Entry {
            event: "rolled-back".into(),
            digest,
            release: slot.release,
            slot: to.word().to_owned(),
            reason: "an operator's rollback".into(),
            ..Entry::default()
        });
        Ok(wire::RollbackAnswer {
            slot: to.word().to_owned(),
            release: slot.release,
            next: if action == Action::Reboot { "reboot".into() } else { String::new() },
            error: None,
        })
    }
}

/// Refusals that are not about the release.
const OWN_REFUSALS: [&str; 6] =
    ["not-confirmed", "on-trial", "record", "config", "no-source", "absent"];

/// Whose fault a failure is, in the words of the history.
fn fault_word(failure: &Failure) -> &'static str {
    match failure.class {
        // What this machine or its settings do not allow now says nothing of the release.
        Class::Refused if OWN_REFUSALS.contains(&failure.kind.as_str()) => "",
        Class::Refused | Class::Corrupt => "release",
        Class::CannotKnow => "registry",
        Class::Disk => "disk",
        Class::State => "state",
        Class::System => "",
    }
}

/// A failure as the protocol has it.
#[must_use]
pub fn on_wire(failure: &Failure) -> wire::Failure {
    wire::Failure {
        class: failure.class.word().to_owned(),
        kind: failure.kind.clone(),
        message: failure.message.clone(),
    }
}
