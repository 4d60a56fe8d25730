//! The updater at work: the plan, driven as the engine drives it, with a network that may break off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use os_init::record::protocol::{Answer, Request};
use os_init::record::server::Keeper;
use partition_layout::boot_state::{Action as RecordAction, Event as RecordEvent};
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use updater::engine::checkpoint::Keep;
use updater::engine::perform::{Local, Place, Streamed, roll_back};
use updater::engine::plan::{Action, Event, Goal, Order, Outcome, Pauses, Plan};
use updater::failure::{Class, Failure};
use updater::policy::{Direction, Leave, Machine};

use crate::image::{ARCH, Image, PRODUCT};
use crate::machine::{Kept, Part, Shared};
use crate::world::{Power, World, tell};

/// Pieces in which the network delivers.
const PIECE: usize = 64 << 10;
/// Actions after which a plan is called endless.
const ACTIONS_MAX: u32 = 200;

/// The running system, as the engine reaches it.
struct Here {
    shared: Shared,
    record: (u64, u64),
    slots: [(u64, u64); 2],
    running: Slot,
}

impl Here {
    fn part(&self, (start, end): (u64, u64)) -> Part {
        Part { disk: self.shared.clone(), start, size: end - start }
    }
}

impl Place for Here {
    type Disk = Part;

    fn record(&self) -> Result<Record, Failure> {
        match Keeper::new(self.part(self.record), self.running).answer(Request::Get) {
            Answer::Ok(_, record) => Ok(*record),
            Answer::Refused(why) | Answer::Failed(why) => {
                Err(os_init::record::Error::Failed(why).into())
            }
        }
    }

    fn tell(&self, event: RecordEvent) -> Result<(RecordAction, Record), Failure> {
        tell(self.part(self.record), &self.shared, self.running, event)
    }

    fn running(&self) -> Slot {
        self.running
    }

    fn shown(&self, slot: Slot) -> String {
        format!("slot {slot}")
    }

    fn open(&self, slot: Slot, _: bool) -> io::Result<Part> {
        Ok(self.part(self.slots[slot.index()]))
    }

    fn checkpoint(&self) -> Box<dyn Keep + Send> {
        Box::new(Kept(self.shared.clone()))
    }
}

/// How the network behaves: so many bytes come, then it breaks off; `None` never breaks.
pub type Network = Option<usize>;

/// What an operator asks for.
#[must_use]
pub fn by_hand() -> Order {
    Order { goal: Goal::Arm, leave: Leave { quarantined: false, direction: Direction::NotOlder } }
}

impl World {
    /// Installs `image` as far as `order` says.
    ///
    /// # Errors
    /// As the updater reports it.
    pub fn install(
        &mut self,
        image: &Arc<Image>,
        order: Order,
        network: Network,
    ) -> Result<Outcome, Failure> {
        let Power::Up { slot: running, .. } = self.power else {
            return Err(Failure::refused("off", "the machine is not up"));
        };
        self.allow(&[self.layout.slot(running.other())]);
        let result = self.walk(image, order, network, running);
        self.allow(&[]);
        let words = match &result {
            Ok(outcome) => outcome.word().to_owned(),
            Err(failure) => format!("{}: {}", failure.class.word(), failure.message),
        };
        self.say(format!("install release {}: {words}", image.number));
        result
    }

    fn walk(
        &mut self,
        image: &Arc<Image>,
        order: Order,
        mut network: Network,
        running: Slot,
    ) -> Result<Outcome, Failure> {
        let size = self.layout.slot(running.other());
        let machine = Machine {
            product: PRODUCT.into(),
            arch: ARCH.into(),
            release: self.holds(running).unwrap_or(0),
            running,
            slot_size: size.end - size.start,
        };
        let pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        let mut local = Local::new(self.here(running));
        let (mut plan, mut action) = Plan::begin(order, machine, pauses);
        let mut now = Duration::ZERO;
        for _ in 0..ACTIONS_MAX {
            let event = match action {
                Action::Finish(result) => return *result,
                Action::Resolve => Ok(Event::Resolved),
                Action::Verify => Ok(Event::Vouched),
                Action::Describe => {
                    local.describe(image.digest, image.release.clone());
                    Ok(Event::Described(image.digest, Box::new(image.release.clone())))
                }
                Action::Wait(pause) => {
                    now += pause;
                    Ok(Event::Waited)
                }
                Action::Stream => stream(&mut local, image, &mut network),
                other => local.perform(&other, |_| {}),
            };
            (plan, action) = plan.step(event.unwrap_or_else(Event::Failed), now);
        }
        Err(Failure::new(Class::System, "endless", "the plan does not end"))
    }

    /// Back to the other slot, as the operator's command does it. Whether the machine must reboot.
    ///
    /// # Errors
    /// As the command reports it.
    pub fn roll_back(&mut self) -> Result<bool, Failure> {
        let Power::Up { slot: running, .. } = self.power else {
            return Err(Failure::refused("off", "the machine is not up"));
        };
        let done = roll_back(&self.here(running));
        let words = match &done {
            Ok(done) => format!("{:?}", done.action),
            Err(failure) => failure.message.clone(),
        };
        self.say(format!("rollback: {words}"));
        Ok(done?.action == RecordAction::Reboot)
    }

    fn here(&self, running: Slot) -> Here {
        let ends = |range: std::ops::Range<u64>| (range.start, range.end);
        Here {
            shared: self.shared.clone(),
            record: ends(self.layout.record.clone()),
            slots: Slot::ALL.map(|slot| ends(self.layout.slot(slot))),
            running,
        }
    }
}

fn stream(local: &mut Local<Here>, image: &Image, network: &mut Network) -> Result<Event, Failure> {
    let (from, until) = local.wanted()?;
    let range = usize::try_from(from).ok().zip(usize::try_from(until).ok());
    let mut rest = range.map(|(from, until)| image.layer.slice(from..until)).unwrap_or_default();
    // It breaks once; the next try finds it whole again.
    let comes = network.take().map_or(rest.len(), |bytes| bytes.min(rest.len()));
    rest.truncate(comes);
    let source = || {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some(piece)
    };
    match local.stream(source, |_| {})? {
        Streamed::Told(event) => Ok(event),
        Streamed::EndedEarly(done) => {
            let failure = Failure::new(Class::CannotKnow, "registry", "the line broke off");
            Ok(Event::Interrupted(done, failure))
        }
    }
}
