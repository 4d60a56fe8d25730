//! What the product would do with a rebuilt disk: the loader's own boot, then the whole image of
//! the slot that it starts.

use std::collections::HashMap;
use std::fmt::Arguments;

use loader::session::{Boot, Hands, Runs, Session, newest};
use loader::slots::Slots;
use partition_layout::loader_plan::Start;
use partition_layout::record::{Cause, Target};
use partition_layout::slot::Slot;
use partition_layout::slot_image::Trailer;
use updater::engine::slot::inspect_disk;

use super::timeline::{Area, Part, Rebuilt, Run, Timeline};

/// Between the last start and the one after the cut, by the firmware's clock, in seconds.
const OUTAGE_S: u64 = 20;
const NONCE: [u8; 16] = [0xAB; 16];

/// What happens when a rebuilt disk is switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the loader said.
    pub said: Vec<String>,
    /// What it started.
    pub started: Option<Started>,
    /// Why that is not a boot; `None` when the machine comes up.
    pub unbootable: Option<String>,
}

/// A slot that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Which.
    pub slot: Slot,
    /// The release that its trailer names.
    pub release: u64,
}

/// Judges rebuilt disks. A judgement is kept with what it was drawn from, so that only what really
/// changed is read again.
#[derive(Default)]
pub struct Judge {
    /// By the marks of table and record.
    boots: HashMap<[u64; 2], Vec<Drawn>>,
    /// By slot and its mark: why the image in it is not whole.
    images: HashMap<(Slot, u64), Option<String>>,
}

/// A verdict, and all that it was drawn from.
struct Drawn {
    from: Vec<(Area, u64)>,
    verdict: Verdict,
}

impl Judge {
    /// Judges the disk that `timeline` has now, with `kept` on it.
    pub fn judge(&mut self, timeline: &Timeline, kept: &[Run]) -> Verdict {
        let key = [Area::Elsewhere, Area::Record].map(|area| timeline.mark(area, kept));
        let same = |drawn: &&Drawn| {
            drawn.from.iter().all(|(area, mark)| timeline.mark(*area, kept) == *mark)
        };
        if let Some(drawn) = self.boots.get(&key).and_then(|known| known.iter().find(same)) {
            return drawn.verdict.clone();
        }
        let mut disk = timeline.rebuilt(kept);
        let mut verdict = boot(&mut disk);
        if let Some(Started { slot, .. }) = verdict.started {
            verdict.unbootable = self.image(timeline, kept, &mut disk, slot);
        }
        let from = disk.areas_read().map(|area| (area, timeline.mark(area, kept))).collect();
        self.boots.entry(key).or_default().push(Drawn { from, verdict: verdict.clone() });
        verdict
    }

    /// Number of different disks, as the loader sees them.
    pub fn boots(&self) -> usize {
        self.boots.values().map(Vec::len).sum()
    }

    /// Number of slot contents that were read from front to back.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Why the image in `slot` is not whole.
    fn image(
        &mut self,
        timeline: &Timeline,
        kept: &[Run],
        disk: &mut Rebuilt<'_>,
        slot: Slot,
    ) -> Option<String> {
        let area = area_of(slot);
        let key = (slot, timeline.mark(area, kept));
        let why = self.images.entry(key).or_insert_with(|| {
            let part = Part::new(disk, timeline.areas().range(area));
            match inspect_disk(part, &format!("slot {slot}"), |_| {}) {
                Ok(inspected) => inspected.is_whole().err().map(str::to_owned),
                Err(failure) => Some(failure.to_string()),
            }
        });
        why.as_ref().map(|why| format!("slot {slot} is started and is not intact: {why}"))
    }
}

/// The area of a slot.
#[must_use]
pub fn area_of(slot: Slot) -> Area {
    match slot {
        Slot::A => Area::SlotA,
        Slot::B => Area::SlotB,
    }
}

/// The loader's boot, up to the start of a kernel.
fn boot(disk: &mut Rebuilt<'_>) -> Verdict {
    let mut hands = Firmware::default();
    let (mut slots, table) = Slots::read(disk);
    if let Err(error) = table {
        hands.said.push(format!("no partition table: {error:?}"));
    }
    let loaded = slots.load_record().and_then(Result::ok);
    let rtc_s = newest(loaded.as_ref()).map_or(0, |record| record.last.rtc_s + OUTAGE_S);
    let start = Start { nonce: NONCE, rtc_s };
    let runs = Session::new(&mut slots, &mut hands, loaded.as_ref(), start).by_rules();
    let unbootable = match (&runs, hands.started) {
        (None, _) => Some("nothing could be started".to_owned()),
        (Some(_), None) => Some("only the recovery image is started".to_owned()),
        (Some(_), Some(_)) => None,
    };
    Verdict { said: hands.said, started: hands.started, unbootable }
}

/// Firmware that starts whatever it is given, and remembers what that was.
#[derive(Default)]
struct Firmware {
    said: Vec<String>,
    started: Option<Started>,
}

impl<D> Hands<D> for Firmware {
    type Memory = Vec<u8>;

    fn memory(&mut self, bytes: usize) -> Option<Vec<u8>> {
        Some(vec![0; bytes])
    }

    fn say(&mut self, line: Arguments) {
        self.said.push(line.to_string());
    }

    fn may(&self, _: Target) -> bool {
        true
    }

    fn begins(&mut self, _: Target) {}

    fn start(
        &mut self,
        slot: Slot,
        _: Vec<u8>,
        trailer: &Trailer,
        _: &Boot<'_, D>,
    ) -> Result<Runs, Cause> {
        self.started = Some(Started { slot, release: trailer.release });
        Ok(Runs)
    }

    fn recover(&mut self, _: &Boot<'_, D>) -> Option<Runs> {
        Some(Runs)
    }
}
