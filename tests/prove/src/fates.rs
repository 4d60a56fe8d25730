//! Which combinations of fates are tried at one cut, and how they are told.

use strict_disk::Fate;

use crate::crash::Limits;
use crate::layout::Layout;
use crate::machine::Cut;
use strict_disk::random::Random;

/// Splits of a long write that are tried, at most.
const SPLITS_MAX: usize = 32;

/// Combinations for so many sectors, and whether these are all.
#[must_use]
pub fn assignments(sectors: usize, limits: Limits, random: &mut Random) -> (Vec<Vec<Fate>>, bool) {
    if power(Fate::ALL.len(), sectors) <= limits.exhaustive {
        // Kept, then lost: the order of the fates.
        let mut chosen = all(&Fate::ALL, sectors);
        if sectors > 1 {
            chosen.insert(1, vec![Fate::Lost; sectors]);
        }
        return (chosen, true);
    }
    let mut chosen = vec![vec![Fate::Kept; sectors], vec![Fate::Lost; sectors]];
    let basic = [Fate::Kept, Fate::Lost, Fate::Garbage];
    if power(basic.len(), sectors) <= limits.exhaustive {
        chosen.extend(all(&basic, sectors));
    } else {
        chosen.push(vec![Fate::Garbage; sectors]);
        for split in (1..sectors).step_by(sectors.div_ceil(SPLITS_MAX)) {
            // The front arrived and the rest did not, or the other way round; or all but one.
            for (front, back) in [(Fate::Kept, Fate::Lost), (Fate::Lost, Fate::Kept)] {
                let mut torn = vec![front; split];
                torn.resize(sectors, back);
                chosen.push(torn);
            }
            for (most, one) in [(Fate::Kept, Fate::Lost), (Fate::Lost, Fate::Kept)] {
                let mut torn = vec![most; sectors];
                torn[split] = one;
                chosen.push(torn);
            }
        }
    }
    for _ in 0..limits.samples {
        // A mix in which one fate prevails is likelier to be interesting than an even one.
        let usual = random.pick(&Fate::ALL).copied().unwrap_or(Fate::Kept);
        let other = random.pick(&[30, 200, 700]).copied().unwrap_or(200);
        let mut fate = || {
            if random.chance(other) {
                random.pick(&Fate::ALL).copied().unwrap_or(usual)
            } else {
                usual
            }
        };
        chosen.push((0..sectors).map(|_| fate()).collect());
    }
    (chosen, false)
}

fn power(base: usize, exponent: usize) -> usize {
    let exponent = u32::try_from(exponent).unwrap_or(u32::MAX);
    base.checked_pow(exponent).unwrap_or(usize::MAX)
}

fn all(fates: &[Fate], sectors: usize) -> Vec<Vec<Fate>> {
    let mut all = vec![Vec::new()];
    for _ in 0..sectors {
        all = all
            .iter()
            .flat_map(|front| {
                fates.iter().map(move |fate| {
                    let mut longer = front.clone();
                    longer.push(*fate);
                    longer
                })
            })
            .collect();
    }
    all
}

/// A cut in words: what came next, and what became of each sector that was not flushed.
#[must_use]
pub fn words(cut: &Cut, unflushed: &[u64], fates: &[Fate], layout: &Layout) -> String {
    let unit = u64::from(layout.shape.sector_size);
    let mut told = format!("POWER CUT before {}", cut.before);
    let mut at = 0;
    while let (Some(sector), Some(fate)) = (unflushed.get(at), fates.get(at)) {
        // Neighbours with the same fate are told together.
        let mut end = at + 1;
        while fates.get(end) == Some(fate)
            && unflushed.get(end).is_some_and(|next| *next == sector + (end - at) as u64)
        {
            end += 1;
        }
        let place = layout.name(sector * unit);
        let count = end - at;
        let sectors = if count == 1 { "sector".into() } else { format!("{count} sectors") };
        told.push_str(&format!("; {sectors} in {place}: {}", fate.words()));
        at = end;
    }
    told
}
