//! A recorded life in words: what each part of the log did, and whether anybody wrote where nobody
//! may.

use partition_layout::record::{Record, Stage};
use partition_layout::slot::Slot;

use super::cuts::Epoch;
use super::recording::Recording;
use super::timeline::{Area, Cut, SECTOR, Timeline};
use crate::write_log::{Entry, Kind};

/// What an epoch did, as far as the next boot is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// The operation, `confirm` where the record says that a boot was.
    pub operation: String,
    /// The records written, in words.
    pub records: Vec<String>,
}

/// The scene of an epoch.
#[must_use]
pub fn scene(recording: &Recording, timeline: &Timeline, epoch: &Epoch) -> Scene {
    let mut operation = recording.step_of(epoch.entries.start).to_owned();
    let mut records = Vec::new();
    for number in &epoch.writes {
        let Some(record) = record_in(timeline, *number) else { continue };
        if record.last.stage == Stage::Confirmed && operation.contains("boot") {
            "confirm".clone_into(&mut operation);
        }
        records.push(format!("entry {number}: {}", words(&record)));
    }
    Scene { operation, records }
}

/// The record that an entry wrote.
fn record_in(timeline: &Timeline, number: usize) -> Option<Record> {
    let entry = timeline.log().entries().get(number)?;
    let Kind::Write { data_at, .. } = entry.kind else { return None };
    if timeline.areas().of_sector(entry.at / SECTOR) != Area::Record {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(entry.length).ok()?];
    timeline.log().read(data_at, &mut bytes).ok()?;
    Record::decode(&bytes).ok()
}

fn words(record: &Record) -> String {
    format!(
        "record {}: default {}, trial {}, {} tries, last start {:?} of {:?}, slots {:?} and {:?}",
        record.generation,
        record.default,
        record.trial.map_or("none", Slot::word),
        record.tries,
        record.last.stage,
        record.last.target,
        record.slot(Slot::A).content,
        record.slot(Slot::B).content,
    )
}

/// Writes that nobody may make: to tables and ESP, to slot A (it runs while slot B is written, and
/// is only started afterwards), to slot B outside the apply.
#[must_use]
pub fn strayed(recording: &Recording, timeline: &Timeline) -> Vec<String> {
    let mut strayed = Vec::new();
    for (number, entry) in timeline.log().entries().iter().enumerate() {
        if entry.kind == Kind::Flush {
            continue;
        }
        let area = timeline.areas().of_sector(entry.at / SECTOR);
        let step = recording.step_of(number);
        let may = match area {
            Area::Record | Area::State => true,
            Area::SlotB => step == "apply",
            Area::Elsewhere | Area::SlotA => false,
        };
        if !may {
            let Entry { at, length, .. } = *entry;
            strayed.push(format!("{step}, entry {number}: {length} bytes at {at} in {area:?}"));
        }
    }
    strayed
}

/// A cut in words: where in the life it is, what arrived, and the records before it.
#[must_use]
pub fn history(recording: &Recording, timeline: &Timeline, cut: &Cut) -> String {
    let step = recording.step_of(cut.flushed);
    let mut text = format!("power cut during: {step}, after the flush at entry {}", cut.flushed);
    let before = timeline.log().entries().len().min(cut.flushed);
    let newest = (0..before).rev().find_map(|number| {
        record_in(timeline, number).map(|record| format!("entry {number}: {}", words(&record)))
    });
    text += &format!("\n  last record before: {}", newest.as_deref().unwrap_or("as at the start"));
    let mut of_state = 0;
    for run in &cut.kept {
        let Some(entry) = timeline.log().entries().get(run.entry) else { continue };
        let area = timeline.areas().of_sector(entry.at / SECTOR);
        if area == Area::State {
            of_state += 1;
            continue;
        }
        let (from, until, all) = (run.skip, run.skip + run.sectors, entry.length / SECTOR);
        text += &format!(
            "\n  arrived: entry {} in {area:?}, sectors {from}..{until} of {all}",
            run.entry
        );
        if let Some(record) = record_in(timeline, run.entry) {
            text += &format!(", {}", words(&record));
        }
    }
    text += &format!("\n  arrived: {of_state} parts in the state partition");
    let epoch = timeline.log().entries().iter().enumerate().skip(cut.flushed);
    for (number, entry) in epoch.take_while(|(_, entry)| entry.kind != Kind::Flush) {
        let area = timeline.areas().of_sector(entry.at / SECTOR);
        if area != Area::State && !cut.kept.iter().any(|run| run.entry == number) {
            text += &format!("\n  lost: entry {number} in {area:?}");
        }
    }
    text
}
