//! One machine: the product's loader, os-init, record helper and updater over a simulated disk.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use os_init::record::protocol::{Answer, Request};
use os_init::record::server::Keeper;
use partition_layout::boot_state::{Action, Event, holds};
use partition_layout::disk::Region;
use partition_layout::places;
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use updater::engine::slot::inspect_disk;
use updater::failure::Failure;

use crate::image::Image;
use crate::layout::Layout;
use crate::machine::{Part, Shared, StateFile};

/// How an image behaves once it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// It passes the health gate.
    Good,
    /// Its services never become healthy.
    FailsGate,
    /// It hangs before os-init reports.
    HangsEarly,
    /// It hangs after os-init reported.
    HangsLate,
    /// It resets within seconds.
    Panics,
    /// The firmware refuses its kernel image.
    Refused,
    /// Its kernel image returns to the loader.
    Returns,
}

impl Behaviour {
    /// Whether it comes up, well or not.
    #[must_use]
    pub fn comes_up(self) -> bool {
        matches!(self, Self::Good | Self::FailsGate)
    }
}

/// What the machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Off, or on its way through the firmware.
    Off,
    /// Up; whether the boot is confirmed, else it is degraded and reachable.
    Up {
        /// The running slot.
        slot: Slot,
        /// The health gate passed.
        confirmed: bool,
    },
    /// The recovery image runs.
    Recovery,
    /// Nothing could be started.
    Dead,
}

/// The releases that exist, and what slots were found to hold.
#[derive(Debug, Default)]
pub struct Library {
    images: HashMap<u64, Arc<Image>>,
    by_hash: HashMap<[u8; 32], u64>,
    /// What a slot of this content holds.
    judged: HashMap<(u64, u64), Option<u64>>,
}

impl Library {
    /// Adds a release.
    pub fn add(&mut self, image: Arc<Image>) {
        self.by_hash.insert(image.release.labels.slot_sha256, image.number);
        self.images.insert(image.number, image);
    }

    /// A release by its number.
    ///
    /// # Errors
    /// There is none.
    pub fn image(&self, number: u64) -> Result<Arc<Image>, String> {
        self.images.get(&number).cloned().ok_or_else(|| format!("no release {number}"))
    }
}

/// A machine.
#[derive(Debug)]
pub struct World {
    /// Its disk and state.
    pub shared: Shared,
    /// Where things truly are.
    pub layout: Arc<Layout>,
    /// The releases.
    pub library: Rc<RefCell<Library>>,
    /// Releases that are not good.
    pub behaviours: HashMap<u64, Behaviour>,
    /// What it is doing.
    pub power: Power,
    /// The firmware's clock.
    pub clock_s: u64,
    /// Starts so far.
    pub starts: u64,
    /// The firmware's flush does something.
    pub firmware_flushes: bool,
    /// A watchdog ends a hang, and says so at the next boot.
    pub has_watchdog: bool,
    /// What the watchdog says at the next boot.
    pub watchdog_status: u32,
    /// The health gate does not decide yet.
    pub gate_waits: bool,
    /// What happened, in words.
    pub trail: Vec<String>,
}

impl World {
    /// A machine that is off.
    #[must_use]
    pub fn new(shared: Shared, layout: Arc<Layout>, library: Rc<RefCell<Library>>) -> Self {
        shared.lock().disk.notes_violations = true;
        Self {
            shared,
            layout,
            library,
            behaviours: HashMap::new(),
            power: Power::Off,
            clock_s: 1_800_000_000,
            starts: 0,
            firmware_flushes: true,
            has_watchdog: false,
            watchdog_status: 0,
            gate_waits: false,
            trail: Vec::new(),
        }
    }

    /// The same machine once more, with a disk and a state of its own.
    #[must_use]
    pub fn fork(&self) -> Self {
        let machine = self.shared.lock();
        let shared = Shared::new(machine.disk.clone(), machine.file.clone(), machine.acknowledged);
        drop(machine);
        Self {
            shared,
            layout: Arc::clone(&self.layout),
            library: Rc::clone(&self.library),
            behaviours: self.behaviours.clone(),
            trail: self.trail.clone(),
            ..*self
        }
    }

    /// Notes something for the history.
    pub fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        // A daemon that gets the same answer every day tells nothing new.
        if self.trail.last() != Some(&what) {
            self.trail.push(what);
        }
    }

    /// How a release behaves.
    #[must_use]
    pub fn behaviour(&self, release: u64) -> Behaviour {
        self.behaviours.get(&release).copied().unwrap_or(Behaviour::Good)
    }

    /// The device of a slot.
    #[must_use]
    pub fn slot_part(&self, slot: Slot) -> Part {
        let range = self.layout.slot(slot);
        Part { disk: self.shared.clone(), start: range.start, size: range.end - range.start }
    }

    /// The device of the record.
    #[must_use]
    pub fn record_part(&self) -> Part {
        let range = &self.layout.record;
        Part { disk: self.shared.clone(), start: range.start, size: range.end - range.start }
    }

    /// The newest record on the disk, as the product reads it.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        let part = self.record_part();
        let size = part.size;
        let loaded = places::load(&mut Region::new(part, 0, size)?).ok()?;
        loaded.newest.map(|(_, record)| record)
    }

    /// The release that a slot holds whole: every part of it agrees with the others, and it is
    /// bit for bit one of the releases that exist.
    #[must_use]
    pub fn holds(&self, slot: Slot) -> Option<u64> {
        let range = self.layout.slot(slot);
        let content = {
            let machine = self.shared.lock();
            let bad = |sectors: &std::collections::BTreeSet<u64>| !sectors.is_empty();
            let cached = !bad(&machine.disk.unreadable);
            cached.then(|| machine.disk.fingerprint(range.clone()))
        };
        let Some(content) = content else { return self.inspect(slot) };
        let key = (content, range.end - range.start);
        if let Some(known) = self.library.borrow().judged.get(&key) {
            return *known;
        }
        let found = self.inspect(slot);
        self.library.borrow_mut().judged.insert(key, found);
        found
    }

    fn inspect(&self, slot: Slot) -> Option<u64> {
        let inspected = inspect_disk(self.slot_part(slot), "slot", |_| {}).ok()?;
        let trailer = inspected.is_whole().ok()?;
        let known = self.library.borrow().by_hash.get(&inspected.sha256).copied();
        known.filter(|number| *number == trailer.release)
    }

    /// Asks the record helper of the running system.
    ///
    /// # Errors
    /// As its callers get it.
    pub fn tell(&mut self, running: Slot, event: Event) -> Result<(Action, Record), Failure> {
        let told = tell(self.record_part(), &self.shared, running, event);
        let words = match &told {
            Ok((Action::None, _)) => String::new(),
            Ok((action, _)) => format!(" → {action:?}"),
            Err(failure) => format!(" → {failure}"),
        };
        self.say(format!("record: {event:?}{words}"));
        told
    }

    /// Says where writes are allowed from here on: the record's places, and `more`.
    pub fn allow(&self, more: &[std::ops::Range<u64>]) {
        let mut ranges = self.layout.places();
        ranges.extend_from_slice(more);
        self.shared.lock().disk.allow_writes(Some(ranges));
    }

    /// Whether the record holds this release back.
    #[must_use]
    pub fn is_held(&self, image: &Image) -> bool {
        self.record().is_some_and(|record| holds(&record, &image.digest.0).is_some())
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shared.lock().disk.operations_left == Some(0)
    }

    /// Looks at the disk without spending any of what is left until the power goes.
    pub fn peek<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        let left = self.shared.lock().disk.operations_left.take();
        let seen = look(self);
        self.shared.lock().disk.operations_left = left;
        seen
    }

    /// The state file.
    #[must_use]
    pub fn file(&self) -> StateFile {
        self.shared.lock().file.clone()
    }

    /// What was done that nobody may do.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().disk.violations.clone()
    }
}

/// Asks the record helper over `part`; what it acknowledges is noted.
///
/// # Errors
/// As its callers get it.
pub fn tell(
    part: Part,
    shared: &Shared,
    running: Slot,
    event: Event,
) -> Result<(Action, Record), Failure> {
    match Keeper::new(part, running).answer(Request::Apply(event)) {
        Answer::Ok(action, record) => {
            let mut machine = shared.lock();
            machine.acknowledged = machine.acknowledged.max(record.generation);
            Ok((action, *record))
        }
        Answer::Refused(why) => Err(os_init::record::Error::Refused(why).into()),
        Answer::Failed(why) => Err(os_init::record::Error::Failed(why).into()),
    }
}
