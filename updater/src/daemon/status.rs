//! How things stand, put together from the record, the boot facts and the history.

use partition_layout::boot_state::holds;
use partition_layout::record::{Content, Fault, Record, SlotRecord};
use partition_layout::slot::Slot;
use partition_layout::verity::hex;
use update_manifest::digest::Digest;

use super::{Daemon, cgroup_peak_bytes, peak_rss_bytes, until};
use crate::failure::Failure;
use crate::wire;

impl Daemon {
    /// The status.
    ///
    /// # Errors
    /// A state fault when the record cannot be read.
    pub fn status(&self) -> Result<wire::MachineStatus, Failure> {
        let record = self.site.record()?.get()?;
        let running = self.site.running;
        let last = self
            .history
            .entries()
            .into_iter()
            .rev()
            .find(|entry| matches!(entry.event.as_str(), "confirmed" | "fell-back"));
        let (last_outcome, last_reason) =
            last.map(|entry| (entry.event, entry.reason)).unwrap_or_default();
        Ok(wire::MachineStatus {
            confirmed: record.confirmed_this_boot && record.default == running,
            running: Some(self.slot(&record, running)),
            other: Some(self.slot(&record, running.other())),
            trial: record.trial.map(|slot| wire::TrialStatus {
                slot: slot.word().to_owned(),
                release: record.slot(slot).release,
                digest: digest_text(record.slot(slot)),
                tries: record.tries.into(),
            }),
            quarantine: quarantine(&record),
            state: self.site.boot.state.clone(),
            state_reason: self.site.boot.state_reason.clone().unwrap_or_default(),
            last_outcome,
            last_reason,
            loader_version: self.site.boot.loader_version.clone(),
            record_written: self.site.boot.record_written,
            record_damaged: self.site.boot.record_damaged.into(),
            floor_secver: record.floor,
            updater: Some(self.own_status()),
        })
    }

    fn slot(&self, record: &Record, slot: Slot) -> wire::SlotStatus {
        let it = record.slot(slot);
        let runs = slot == self.site.running;
        let known = self
            .history
            .entries()
            .into_iter()
            .rev()
            .find(|entry| !entry.version.is_empty() && entry.digest == digest_text(it));
        let version = match known {
            _ if runs => self.site.release.version.clone(),
            Some(entry) => entry.version,
            None => String::new(),
        };
        wire::SlotStatus {
            slot: slot.word().to_owned(),
            state: match it.content {
                Content::Empty => "empty",
                Content::Writing => "writing",
                Content::Sealed => "sealed",
            }
            .to_owned(),
            release: if runs { self.site.release.release } else { it.release },
            version,
            digest: digest_text(it),
            secver: it.secver,
            proven: it.proven,
            fault: match it.fault {
                Fault::None => String::new(),
                _ => it.cause.words().to_owned(),
            },
        }
    }

    fn own_status(&self) -> wire::UpdaterStatus {
        let settings = self.settings();
        let progress = self.progress.borrow().clone();
        let look = self.with_look(|look| look.clone());
        wire::UpdaterStatus {
            peak_rss_bytes: peak_rss_bytes(),
            cgroup_peak_bytes: cgroup_peak_bytes(),
            policy: settings.policy.word().to_owned(),
            paused: self.paused().is_some(),
            source: settings.source.map(|source| source.to_string()).unwrap_or_default(),
            phase: progress.phase,
            done_bytes: progress.done,
            total_bytes: progress.total,
            next_look_s: look.next.map_or(0, |at| until(at).as_secs()),
            waiting: look.waiting,
            problems: settings.problems,
            last_check: look.last,
        }
    }
}

fn digest_text(slot: &SlotRecord) -> String {
    if slot.digest == [0; 32] { String::new() } else { Digest(slot.digest).to_string() }
}

fn quarantine(record: &Record) -> Vec<wire::Quarantined> {
    let entries = record.quarantine.iter().flatten();
    entries
        .map(|entry| {
            let mut digest = [0; 32];
            for (byte, known) in digest.iter_mut().zip(entry.prefix) {
                *byte = known;
            }
            let held = holds(record, &digest).is_some();
            let whole = record.slots.iter().find(|slot| slot.digest.starts_with(&entry.prefix));
            wire::Quarantined {
                digest: match whole {
                    Some(slot) => Digest(slot.digest).to_string(),
                    None => format!("sha256:{}", hex(&entry.prefix)),
                },
                reason: entry.cause.words().to_owned(),
                count: entry.count.into(),
                held,
            }
        })
        .collect()
}
