//! What the daemon does without being asked: tell what became of the last trial, look for
//! releases, install them as far as the policy says, and reboot in the window.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use os_init::control::Request;
use partition_layout::boot_state::Event as RecordEvent;
use partition_layout::record::Record;

use super::Daemon;
use crate::clock::now_s;
use crate::engine::install::Report;
use crate::engine::plan::{Goal, Order, Outcome};
use crate::failure::{Class, Failure};
use crate::history::Entry;
use crate::outcome::{Fate, fate, whose};
use crate::policy::{Direction, Leave};
use crate::schedule::{Leave as Reboot, may_reboot, next_look};
use crate::settings::{Policy, Settings};

/// How often the daemon looks at the record, the settings and the clock.
const TICK: Duration = Duration::from_secs(5);

/// Runs until the process ends.
pub async fn run(daemon: Arc<Daemon>) {
    // The first look comes soon after the start, but not while the gate counts.
    let first = next_look(Duration::from_secs(10), 0, None, random());
    daemon.with_look(|look| look.next = Some(Instant::now() + first));
    loop {
        if let Ok(mut record) = daemon.site.record()
            && let Ok(record) = record.get()
        {
            daemon.settle(&record);
            let settings = daemon.settings();
            daemon.act(&settings, &record).await;
        }
        tokio::time::sleep(TICK).await;
    }
}

impl Daemon {
    /// Writes down what became of the pending release, once that is known.
    fn settle(&self, record: &Record) {
        let Some(pending) = self.pending.read() else { return };
        let entry = |event: &str, fault: &str, reason: &str| Entry {
            event: event.to_owned(),
            digest: pending.digest.clone(),
            release: pending.release,
            version: pending.version.clone(),
            slot: pending.target.clone(),
            fault: fault.to_owned(),
            reason: reason.to_owned(),
            ..Entry::default()
        };
        match fate(&pending, record, self.site.running, &self.site.boot.boot_id) {
            Fate::NotStarted | Fate::OnTrial => return,
            Fate::LeftOut => {
                let reason = "the loader could not write the record, so the trial was left out";
                self.with_look(|look| look.waiting = reason.to_owned());
                return;
            }
            Fate::Confirmed => self.note(entry("confirmed", "", "the health gate passed")),
            Fate::FellBack(cause) => self.note(entry("fell-back", whose(cause), cause.words())),
            Fate::TakenBack => {}
        }
        self.pending.clear();
    }

    async fn act(&self, settings: &Settings, record: &Record) {
        let waits = record.trial == Some(self.site.running.other()) && record.tries > 0;
        if self.paused().is_some() {
            self.with_look(|look| look.waiting = "paused".into());
            return;
        }
        if settings.policy == Policy::Off || settings.source.is_none() {
            self.with_look(|look| look.waiting.clear());
            return;
        }
        if waits {
            if settings.policy == Policy::Auto && self.window_opens(settings) {
                self.reboot(record);
            }
            return;
        }
        // Before that nothing may be written, and asking would only be refused.
        let is_confirmed = record.confirmed_this_boot && record.default == self.site.running;
        if !is_confirmed && settings.policy != Policy::Check {
            self.with_look(|look| look.waiting = "waits for this boot's confirmation".into());
            return;
        }
        let is_due = self.with_look(|look| look.next.is_none_or(|at| at <= Instant::now()));
        if is_due {
            self.with_look(|look| look.waiting.clear());
            self.look(settings).await;
        }
    }

    async fn look(&self, settings: &Settings) {
        let may_arm = settings.policy == Policy::Auto && self.window_opens(settings);
        let goal = match settings.policy {
            Policy::Off | Policy::Check => Goal::Look,
            Policy::Stage => Goal::Seal,
            // An unplanned reboot outside the window must start what ran.
            Policy::Auto if may_arm => Goal::Arm,
            Policy::Auto => Goal::Seal,
        };
        let leave = Leave { quarantined: false, direction: Direction::Newer };
        let looked = self.install(Order { goal, leave }, None).await;
        let (told, failure, retry_after) = match &looked {
            Ok((_, report)) => (tell(report), report.result.as_ref().err(), report.retry_after),
            Err(failure) => (failure.message.clone(), Some(failure), None),
        };
        // A refusal is a good answer: the release that mends it must be seen at the next interval.
        let failed = failure.is_some_and(|failure| failure.class != Class::Refused);
        let sealed = looked.as_ref().is_ok_and(|(_, report)| {
            matches!(report.result, Ok(Outcome::Sealed | Outcome::AlreadySealed))
        });
        self.with_look(|look| {
            look.failures = if failed { look.failures.saturating_add(1) } else { 0 };
            // A release that waits for its window is looked at again when that opens.
            let interval = if sealed && settings.policy == Policy::Auto {
                settings.interval.min(Duration::from_secs(60))
            } else {
                settings.interval
            };
            let pause = next_look(interval, look.failures, retry_after, random());
            look.next = Some(Instant::now() + pause);
            look.last = told;
        });
    }

    /// Whether the machine may reboot now; says in the status why not.
    fn window_opens(&self, settings: &Settings) -> bool {
        let built_s = self.site.release.built_s();
        let (opens, why) = match may_reboot(settings.window.as_ref(), now_s(), built_s) {
            Reboot::Now => (true, ""),
            Reboot::OutsideWindow => (false, "waits for the window"),
            Reboot::ClockNotSet => {
                (false, "clock not set: the window cannot be known; look at the time service")
            }
        };
        self.with_look(|look| look.waiting = why.to_owned());
        opens
    }

    fn reboot(&self, record: &Record) {
        // After a start at which the loader could not write, asking is counted, and ends.
        if !self.site.boot.record_written && record.trial.is_some() {
            let asked =
                self.site.record().and_then(|mut client| Ok(client.apply(RecordEvent::AskReboot)?));
            if let Err(failure) = asked {
                self.with_look(|look| look.waiting = failure.message.clone());
                return;
            }
        }
        if let Err(failure) = request_reboot() {
            self.with_look(|look| look.waiting = failure.message.clone());
        }
    }
}

/// Asks PID 1 for an orderly reboot.
///
/// # Errors
/// When it does not answer.
pub fn request_reboot() -> Result<(), Failure> {
    os_init::control::ask(&Request::Reboot).map(drop).map_err(|error| {
        let message = format!("ask for a reboot at {}: {error}", os_init::control::SOCKET);
        Failure::new(Class::System, "control", message)
    })
}

fn tell(report: &Report) -> String {
    match &report.result {
        Ok(outcome) if report.version.is_empty() => outcome.word().to_owned(),
        Ok(outcome) => format!("{}: {}", report.version, outcome.word()),
        Err(failure) => format!("{}: {}", failure.class.word(), failure.message),
    }
}

fn random() -> u64 {
    // The hasher's keys come from the system's random source.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
