//! What became of the release that was last armed. Pure rule, and the note that it works from.

use std::path::{Path, PathBuf};

use partition_layout::record::{Cause, Fault, Record};
use partition_layout::slot::Slot;
use partition_layout::verity::unhex;
use serde::{Deserialize, Serialize};

use crate::engine::checkpoint::replace;
use crate::failure::{Class, Failure};

/// A release on its way through its trial, noted when it was armed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The slot that is to be tried, `a` or `b`.
    pub target: String,
    /// Manifest digest, `sha256:…`.
    pub digest: String,
    /// Release number.
    pub release: u64,
    /// Version for people.
    pub version: String,
    /// The boot in which it was armed.
    pub boot_id: String,
}

/// What is known of a pending release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The machine has not been started since.
    NotStarted,
    /// It runs, on trial.
    OnTrial,
    /// It runs and is confirmed.
    Confirmed,
    /// Another slot runs: it was tried, or could not be.
    FellBack(Cause),
    /// The loader left the trial out, since it could not write the record.
    LeftOut,
    /// It was taken back by an operator before or during its trial.
    TakenBack,
}

/// Judges a pending release by the record of a machine that runs from `running`.
#[must_use]
pub fn fate(pending: &Pending, record: &Record, running: Slot, boot_id: &str) -> Fate {
    let target = Slot::from_word(&pending.target).unwrap_or(running.other());
    if running == target {
        if record.trial == Some(target) {
            return Fate::OnTrial;
        }
        let confirmed = record.default == target && record.confirmed_this_boot;
        return if confirmed { Fate::Confirmed } else { Fate::OnTrial };
    }
    let slot = record.slot(target);
    let same = pending.digest.strip_prefix("sha256:").and_then(unhex::<32>) == Some(slot.digest);
    if same && slot.fault != Fault::None {
        return Fate::FellBack(slot.cause);
    }
    if same && record.trial == Some(target) {
        let started = pending.boot_id != boot_id;
        return if started { Fate::LeftOut } else { Fate::NotStarted };
    }
    if pending.boot_id == boot_id && record.trial.is_none() {
        return Fate::TakenBack;
    }
    let held = record.quarantine.iter().flatten().find(|entry| {
        let digest = pending.digest.strip_prefix("sha256:").and_then(unhex::<32>);
        digest.is_some_and(|digest| digest.starts_with(&entry.prefix))
    });
    match held.map(|entry| entry.cause) {
        Some(Cause::Operator) => Fate::TakenBack,
        Some(cause) => Fate::FellBack(cause),
        None => Fate::FellBack(Cause::Unknown),
    }
}

/// Whose fault a cause is, in the words of the history.
#[must_use]
pub fn whose(cause: Cause) -> &'static str {
    match cause {
        // Tries are spent by power cuts as well as by hangs: it cannot be told which.
        Cause::TriesSpent => "power",
        Cause::Unreadable | Cause::Verity => "disk",
        cause if cause.blames_release() => "release",
        _ => "",
    }
}

/// Where the note lies.
#[derive(Debug, Clone)]
pub struct PendingFile {
    path: PathBuf,
}

impl PendingFile {
    /// The note in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> PendingFile {
        PendingFile { path: folder.join("pending.json") }
    }

    /// The note, if there is one that can be read.
    #[must_use]
    pub fn read(&self) -> Option<Pending> {
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// A state fault.
    pub fn write(&self, pending: &Pending) -> Result<(), Failure> {
        let text = serde_json::to_string(pending).unwrap_or_default();
        replace(&self.path, text.as_bytes()).map_err(|error| {
            Failure::new(Class::State, "state", format!("write {}: {error}", self.path.display()))
        })
    }

    /// Removes it; a missing one is no error.
    pub fn clear(&self) {
        // One that stays is judged again, with the same answer.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partition_layout::boot_state::{Blame, Event, ImageFacts, factory, step};
    use update_manifest::digest::Digest;

    fn pending() -> Pending {
        Pending {
            target: "b".into(),
            digest: Digest([9; 32]).to_string(),
            release: 2,
            version: "0.2.0".into(),
            boot_id: "first".into(),
        }
    }

    fn after(events: &[(Slot, Event)]) -> Record {
        let facts = ImageFacts { release: 1, secver: 0, digest: [1; 32] };
        let mut record = factory([1; 16], facts);
        let mut was = Slot::A;
        for (running, event) in events {
            // A start of the other slot is another boot, not confirmed yet.
            record.confirmed_this_boot &= *running == was;
            was = *running;
            record = step(&record, *running, *event).unwrap().record;
        }
        record
    }

    fn armed() -> Vec<(Slot, Event)> {
        let facts = ImageFacts { release: 2, secver: 0, digest: [9; 32] };
        [Event::Confirm, Event::Disarm, Event::Seal(facts), Event::Arm]
            .map(|event| (Slot::A, event))
            .to_vec()
    }

    #[test]
    fn every_fate_is_told() {
        let check = |more: &[(Slot, Event)], running, boot: &str, expected| {
            let mut events = armed();
            events.extend_from_slice(more);
            let record = after(&events);
            assert_eq!(fate(&pending(), &record, running, boot), expected, "{more:?}");
        };
        check(&[], Slot::A, "first", Fate::NotStarted);
        check(&[], Slot::A, "second", Fate::LeftOut);
        check(&[], Slot::B, "second", Fate::OnTrial);
        check(&[(Slot::B, Event::Confirm)], Slot::B, "second", Fate::Confirmed);
        check(&[(Slot::A, Event::Rollback)], Slot::A, "first", Fate::TakenBack);
        let failed = (Slot::B, Event::GateFailed { blame: Blame::Slot });
        check(&[failed], Slot::A, "third", Fate::FellBack(Cause::Gate));
        check(&[(Slot::B, Event::Rollback)], Slot::A, "third", Fate::TakenBack);
    }
}
