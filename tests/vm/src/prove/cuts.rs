//! Which power cuts are looked at: each flush, and between two flushes seeded subsets of what was
//! written and not flushed, whole writes and torn ones.

use std::collections::BTreeSet;
use std::ops::Range;

use strict_disk::random::Random;

use super::timeline::{Area, Areas, Cut, Run, SECTOR};
use crate::write_log::{Entry, Kind};

/// A write of no more sectors is torn at each of them; a longer one at so many places.
const TORN_AT: u64 = 32;
/// Of so many draws in vain the subsets of an epoch are used up.
const DRAWS_IN_VAIN: u32 = 200;

/// The entries between two flushes: none of them is certain to be on the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Numbers of the entries; the flush that ends it is the last one.
    pub entries: Range<usize>,
    /// Those of them that write.
    pub writes: Vec<usize>,
}

/// The epochs of a log, in order.
#[must_use]
pub fn epochs(entries: &[Entry]) -> Vec<Epoch> {
    let mut epochs = Vec::new();
    let (mut first, mut writes) = (0, Vec::new());
    for (number, entry) in entries.iter().enumerate() {
        match entry.kind {
            Kind::Write { .. } => writes.push(number),
            Kind::Discard => {}
            Kind::Flush => {
                let writes = std::mem::take(&mut writes);
                epochs.push(Epoch { entries: first..number + 1, writes });
                first = number + 1;
            }
        }
    }
    if first < entries.len() {
        epochs.push(Epoch { entries: first..entries.len(), writes });
    }
    epochs
}

/// The epochs of the same log from a disk whose flush does nothing: one for all writes.
#[must_use]
pub fn without_flushes(epochs: &[Epoch]) -> Vec<Epoch> {
    let end = epochs.last().map_or(0, |epoch| epoch.entries.end);
    let writes = epochs.iter().flat_map(|epoch| epoch.writes.iter().copied()).collect();
    vec![Epoch { entries: 0..end, writes }]
}

/// `wanted` different cuts, or as many as there are: for each epoch the flush before it, with
/// nothing else, and subsets. Sorted by time. The last one is the whole log.
#[must_use]
pub fn choose(
    entries: &[Entry],
    epochs: &[Epoch],
    areas: &Areas,
    wanted: usize,
    seed: u64,
) -> Vec<Cut> {
    let mut cuts: BTreeSet<Cut> = BTreeSet::new();
    for epoch in epochs {
        cuts.insert(Cut { flushed: epoch.entries.start, kept: Vec::new() });
    }
    cuts.insert(Cut { flushed: entries.len(), kept: Vec::new() });
    let mut random = Random::new(seed);
    // What decides the next boot is looked at more often than the state partition.
    let mut open: Vec<(&Epoch, u32)> = epochs
        .iter()
        .filter(|epoch| !epoch.writes.is_empty())
        .map(|epoch| (epoch, if decides(epoch, entries, areas) { 3 } else { 1 }))
        .collect();
    while cuts.len() < wanted && !open.is_empty() {
        open.retain(|(epoch, weight)| {
            (0..*weight).all(|_| {
                let drawn = (0..DRAWS_IN_VAIN).any(|_| {
                    let kept = subset(epoch, entries, &mut random);
                    // Nothing of it, or all of it, is the flush before or after.
                    !is_whole(&kept, epoch, entries)
                        && cuts.insert(Cut { flushed: epoch.entries.start, kept })
                });
                drawn || cuts.len() >= wanted
            })
        });
    }
    let mut cuts: Vec<Cut> = cuts.into_iter().collect();
    // The flushes are all there; of the subsets the last round may have drawn too many.
    let mut surplus = cuts.len().saturating_sub(wanted);
    cuts.retain(|cut| {
        let drop = surplus > 0 && cut.kept.len() > 1;
        surplus -= usize::from(drop);
        !drop
    });
    cuts
}

/// Whether an epoch writes anything but the state partition.
fn decides(epoch: &Epoch, entries: &[Entry], areas: &Areas) -> bool {
    let of = |number: &usize| entries.get(*number).map(|entry| areas.of_sector(entry.at / SECTOR));
    epoch.writes.iter().any(|number| of(number) != Some(Area::State))
}

fn is_whole(kept: &[Run], epoch: &Epoch, entries: &[Entry]) -> bool {
    let sectors = |number: &usize| entries.get(*number).map_or(0, |entry| entry.length / SECTOR);
    let all: u64 = epoch.writes.iter().map(sectors).sum();
    kept.iter().map(|run| run.sectors).sum::<u64>() == all
}

/// Some of what an epoch wrote.
fn subset(epoch: &Epoch, entries: &[Entry], random: &mut Random) -> Vec<Run> {
    let manner = random.below(4);
    let chosen = random.below(epoch.writes.len() as u64);
    let mut kept = Vec::new();
    for (place, number) in (0..).zip(&epoch.writes) {
        let Some(Entry { length, kind: Kind::Write { durable, .. }, .. }) = entries.get(*number)
        else {
            continue;
        };
        let sectors = length / SECTOR;
        let whole = Run { entry: *number, skip: 0, sectors };
        match manner {
            _ if *durable => kept.push(whole),
            // In order, and torn where the power went.
            0 if place < chosen => kept.push(whole),
            0 if place == chosen => torn(whole, random, &mut kept),
            0 => {}
            // All but one.
            1 if place != chosen => kept.push(whole),
            1 => torn(whole, random, &mut kept),
            // Each on its own.
            2 if random.below(2) == 0 => kept.push(whole),
            2 => {}
            _ => match random.below(3) {
                0 => kept.push(whole),
                1 => torn(whole, random, &mut kept),
                _ => {}
            },
        }
    }
    kept
}

/// Some of the sectors of a write: its beginning, its end, or any.
fn torn(whole: Run, random: &mut Random, kept: &mut Vec<Run>) {
    let sectors = whole.sectors;
    let at = random.below(sectors + 1);
    let part = |from: u64, until: u64| Run { skip: from, sectors: until - from, ..whole };
    match random.below(3) {
        0 if at > 0 => kept.push(part(0, at)),
        1 if at < sectors => kept.push(part(at, sectors)),
        2 => {
            let step = sectors.div_ceil(TORN_AT).max(1);
            let mut from = 0;
            while from < sectors {
                let until = (from + 1 + random.below(step * 2 - 1)).min(sectors);
                if random.below(2) == 0 {
                    let new = part(from, until);
                    match kept.last_mut() {
                        Some(last)
                            if last.entry == new.entry && last.skip + last.sectors == from =>
                        {
                            last.sectors += new.sectors;
                        }
                        _ => kept.push(new),
                    }
                }
                from = until;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sector: u64, sectors: u64) -> Entry {
        let kind = Kind::Write { data_at: 0, durable: false };
        Entry { at: sector * SECTOR, length: sectors * SECTOR, kind }
    }

    const FLUSH: Entry = Entry { at: 0, length: 0, kind: Kind::Flush };

    fn chosen(entries: &[Entry], wanted: usize, seed: u64) -> Vec<Cut> {
        choose(entries, &epochs(entries), &Areas::default(), wanted, seed)
    }

    #[test]
    fn nothing_before_a_flush_is_lost_and_nothing_behind_the_next_one_arrives() {
        let entries = [write(0, 8), FLUSH, write(8, 3), write(2, 100), FLUSH, write(1, 1), FLUSH];
        for seed in 0..50 {
            for cut in chosen(&entries, 200, seed) {
                assert!([0, 2, 5, 7].contains(&cut.flushed), "{cut:?}");
                let next = entries.iter().skip(cut.flushed).position(|it| it.kind == Kind::Flush);
                let next = cut.flushed + next.unwrap_or(0);
                for run in &cut.kept {
                    assert!((cut.flushed..next).contains(&run.entry), "{cut:?}");
                    let whole = entries[run.entry].length / SECTOR;
                    assert!(run.sectors > 0 && run.skip + run.sectors <= whole, "{cut:?}");
                }
            }
        }
    }

    #[test]
    fn every_flush_is_a_cut_and_the_cuts_differ() {
        let entries = [write(0, 8), FLUSH, write(8, 3), FLUSH, FLUSH];
        let cuts = chosen(&entries, 60, 7);
        assert_eq!(cuts.len(), 60);
        let flushed = |number| cuts.contains(&Cut { flushed: number, kept: Vec::new() });
        assert!([0, 2, 4, 5].into_iter().all(flushed), "{cuts:?}");
        assert_eq!(cuts.iter().collect::<BTreeSet<_>>().len(), 60);
        assert_eq!(cuts, chosen(&entries, 60, 7));
        assert_ne!(cuts, chosen(&entries, 60, 8));
    }

    #[test]
    fn all_subsets_of_a_small_epoch_are_found() {
        // Three sectors: each kept or lost, but for the two that a flush stands for.
        let cuts = chosen(&[write(0, 1), write(5, 2), FLUSH], 1000, 3);
        let sectors = |cut: &Cut| {
            let runs = cut.kept.iter();
            runs.flat_map(|it| (it.skip..it.skip + it.sectors).map(|s| (it.entry, s))).collect()
        };
        let contents: BTreeSet<Vec<(usize, u64)>> = cuts.iter().map(sectors).collect();
        assert_eq!(contents.len(), 7, "{contents:?}");
        assert_eq!(cuts.len(), 8);
    }

    #[test]
    fn a_durable_write_is_never_lost() {
        let kind = Kind::Write { data_at: 0, durable: true };
        let durable = Entry { at: 0, length: 4 * SECTOR, kind };
        let cuts = chosen(&[write(9, 4), durable, FLUSH], 40, 5);
        let whole = Run { entry: 1, skip: 0, sectors: 4 };
        assert!(cuts.iter().filter(|it| !it.kept.is_empty()).all(|it| it.kept.contains(&whole)));
    }
}
