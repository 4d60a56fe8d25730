//! The operations whose every cut is tried, each on machines that are ready for it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use partition_layout::layout::MIB;
use partition_layout::slot::Slot;
use updater::engine::plan::{Goal, Order, Outcome};
use updater::policy::{Direction, Leave};

use crate::crash::Promise;
use crate::image::Image;
use crate::layout::{Shape, fresh};
use crate::machine::{Shared, StateFile};
use crate::update::{Network, by_hand};
use crate::world::{Behaviour, Library, Power, World};

/// The result of a preparation or an operation.
pub type Done = Result<(), String>;

/// An operation, and how a machine gets ready for it.
pub struct Scenario {
    /// What is done, in words.
    pub name: &'static str,
    /// Under which heading it is counted.
    pub group: &'static str,
    /// What disks it is tried on.
    pub shapes: Vec<Shape>,
    /// Before the first cut.
    pub prepare: fn(&mut World) -> Done,
    /// What is cut.
    pub run: fn(&mut World) -> Done,
    /// What it promises.
    pub promise: Promise,
    /// The firmware's flush does nothing.
    pub lying_firmware: bool,
}

/// Releases: small ones of several sizes, and larger ones of two and of ten frames.
const RELEASES: [(u64, u64); 8] =
    [(1, 5), (2, 7), (3, 3), (4, 5), (10, 256), (11, 280), (12, 256 * 9), (13, 256 * 9 + 3)];

thread_local! {
    static LIBRARY: Rc<RefCell<Library>> = Rc::default();
}

/// The releases of this thread.
///
/// # Errors
/// One that cannot be built.
pub fn library(number: u64) -> Result<(Rc<RefCell<Library>>, Arc<Image>), String> {
    LIBRARY.with(|library| {
        if library.borrow().image(number).is_err() {
            let blocks = RELEASES.iter().find(|(known, _)| *known == number).map_or(2, |(_, b)| *b);
            let image = Image::new(number, blocks)?;
            library.borrow_mut().add(image);
        }
        let image = library.borrow().image(number)?;
        Ok((Rc::clone(library), image))
    })
}

impl World {
    /// A machine from the factory that was never switched on, with `release` in slot A.
    ///
    /// # Errors
    /// What cannot be made.
    pub fn factory(shape: Shape, release: u64) -> Result<World, String> {
        let (library, image) = library(release)?;
        let (disk, layout) = fresh(shape, &image)?;
        let shared = Shared::new(disk, StateFile::default(), 0);
        Ok(World::new(shared, Arc::new(layout), library))
    }

    /// Installs a release, which must end so.
    ///
    /// # Errors
    /// It ends otherwise.
    pub fn installs(&mut self, number: u64, order: Order, outcome: Outcome) -> Done {
        self.installs_over(number, order, outcome, None)
    }

    fn installs_over(
        &mut self,
        number: u64,
        order: Order,
        outcome: Outcome,
        network: Network,
    ) -> Done {
        let (_, image) = library(number)?;
        match self.install(&image, order, network) {
            Ok(ended) if ended == outcome => Ok(()),
            Ok(ended) => Err(format!("apply of {number} ended {ended:?}, not {outcome:?}")),
            Err(failure) => Err(format!("apply of {number}: {}", failure.message)),
        }
    }

    /// A reboot in order.
    ///
    /// # Errors
    /// It does not come up.
    pub fn reboot(&mut self) -> Done {
        self.stop();
        self.come_up()
    }

    /// Runs release 2 from slot B, confirmed; release 1 is in slot A.
    ///
    /// # Errors
    /// It does not.
    pub fn second_release(&mut self) -> Done {
        self.come_up()?;
        self.installs(2, by_hand(), Outcome::Armed)?;
        self.reboot()?;
        let runs = self.power == Power::Up { slot: Slot::B, confirmed: true };
        if runs { Ok(()) } else { Err(format!("{:?} after an update", self.power)) }
    }
}

fn seal() -> Order {
    Order { goal: Goal::Seal, ..by_hand() }
}

fn forced() -> Order {
    Order { goal: Goal::Arm, leave: Leave { quarantined: true, direction: Direction::NotOlder } }
}

fn small() -> Vec<Shape> {
    vec![Shape::small(512), Shape::small(4096)]
}

fn beyond_two_tib() -> Shape {
    Shape { front: 3 << 40, ..Shape::small(512) }
}

fn large() -> Vec<Shape> {
    vec![Shape { slot: 4 * MIB, ..Shape::small(4096) }]
}

fn scenario(
    name: &'static str,
    group: &'static str,
    prepare: fn(&mut World) -> Done,
    run: fn(&mut World) -> Done,
) -> Scenario {
    let promise = Promise { then_install: Some(4), ..Promise::default() };
    Scenario { name, group, shapes: small(), prepare, run, promise, lying_firmware: false }
}

fn armed(world: &mut World) -> Done {
    world.come_up()?;
    world.installs(2, by_hand(), Outcome::Armed)
}

fn armed_and_off(world: &mut World) -> Done {
    armed(world)?;
    world.stop();
    Ok(())
}

fn on_trial(world: &mut World) -> Done {
    armed_and_off(world)?;
    world.gate_waits = true;
    world.come_up()
}

/// Every scenario, the longest first.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut all = larger();
    all.extend(applies());
    all.extend(tables());
    all.extend(trials());
    all.extend(damaged());
    all.extend(people());
    all
}

fn larger() -> Vec<Scenario> {
    let mut fresh = scenario("apply of ten frames", "apply", World::come_up, |world| {
        world.installs(12, by_hand(), Outcome::Armed)
    });
    fresh.shapes = vec![Shape { slot: 12 * MIB, ..Shape::small(4096) }];
    fresh.promise.then_install = Some(13);
    let mut broken = scenario("apply, the line breaks off", "apply", World::come_up, |world| {
        world.installs_over(10, by_hand(), Outcome::Armed, Some(20_000))
    });
    broken.shapes = large();
    broken.promise.then_install = Some(11);
    let mut resumed = scenario(
        "apply, taken up after a cut",
        "apply resumed",
        |world| {
            world.come_up()?;
            world.shared.lock().cuts = Some(Vec::new());
            world.installs(10, by_hand(), Outcome::Armed)?;
            let cuts = world.shared.lock().cuts.take().unwrap_or_default();
            // Right behind the second frame: one is in the checkpoint.
            let noted = cuts.iter().find(|cut| {
                cut.files.first().and_then(|file| file.content.as_ref()).is_some_and(|content| {
                    content.iter().filter(|byte| **byte == b'\n').count() > 1
                })
            });
            let cut = noted.or(cuts.last()).ok_or("no cut")?.clone();
            let file = cut.files.first().cloned().unwrap_or_default();
            let mut disk = cut.disk;
            disk.power_cut(|_| strict_disk::Fate::Lost);
            world.shared = Shared::new(disk, file, cut.acknowledged);
            world.power = Power::Off;
            world.starts += 100;
            world.come_up()
        },
        |world| world.installs(10, by_hand(), Outcome::Armed),
    );
    resumed.shapes = large();
    resumed.promise.then_install = Some(10);
    vec![fresh, broken, resumed]
}

fn applies() -> Vec<Scenario> {
    let mut fresh = scenario("apply into an empty slot", "apply", World::come_up, |world| {
        world.installs(2, by_hand(), Outcome::Armed)
    });
    fresh.shapes.push(beyond_two_tib());
    fresh.promise.then_install = Some(2);
    let over = scenario("apply over an older release", "apply", World::second_release, |world| {
        world.installs(3, by_hand(), Outcome::Armed)
    });
    let mut again = scenario("apply of what is armed", "apply repeated", armed, |world| {
        world.installs(2, by_hand(), Outcome::AlreadyArmed)?;
        world.reboot()
    });
    again.promise.then_install = Some(2);
    let sealed = scenario(
        "apply of what is sealed",
        "apply repeated",
        |world| {
            world.come_up()?;
            world.installs(2, seal(), Outcome::Sealed)
        },
        |world| world.installs(2, by_hand(), Outcome::Armed),
    );
    let mut gone_bad = scenario(
        "apply of what was sealed and has gone bad",
        "apply repeated",
        |world| {
            world.come_up()?;
            world.installs(2, seal(), Outcome::Sealed)?;
            let sector =
                world.layout.slot(Slot::B).start / u64::from(world.layout.shape.sector_size);
            world.shared.lock().disk.damage(sector + 8, |bytes| bytes[100] ^= 1);
            Ok(())
        },
        |world| world.installs(2, by_hand(), Outcome::Armed),
    );
    gone_bad.promise.slots_damaged = true;
    let forced = scenario(
        "retry of a release in quarantine",
        "apply forced",
        |world| {
            world.behaviours.insert(2, Behaviour::FailsGate);
            armed_and_off(world)?;
            world.come_up()?;
            world.behaviours.clear();
            Ok(())
        },
        |world| world.installs(2, forced(), Outcome::Armed),
    );
    vec![over, fresh, sealed, again, gone_bad, forced]
}

fn tables() -> Vec<Scenario> {
    let mut first =
        scenario("first boot on a larger disk", "first boot", |_| Ok(()), World::come_up);
    let larger = |shape: Shape| Shape { larger: 100 * MIB, ..shape };
    first.shapes = small().into_iter().map(larger).collect();
    let mut grown = scenario(
        "boot after the disk has grown",
        "state growth",
        |world| {
            world.come_up()?;
            world.stop();
            world.shared.lock().disk.grow(64 * MIB);
            Ok(())
        },
        World::come_up,
    );
    grown.promise.then_install = Some(2);
    let mend = scenario(
        "boot with a damaged primary table",
        "state growth",
        |world| {
            world.come_up()?;
            world.stop();
            lose_primary(world)
        },
        World::come_up,
    );
    // The table is mended and then gets an entry: its two copies change one after the other.
    let mut mend_first = scenario(
        "first boot with a damaged primary table",
        "first boot",
        lose_primary,
        World::come_up,
    );
    mend_first.shapes = vec![Shape::small(4096)];
    vec![first, mend_first, grown, mend]
}

fn trials() -> Vec<Scenario> {
    let trial = scenario("start of a trial, and confirm", "confirm", armed_and_off, World::come_up);
    let mut lying = scenario(
        "start of a trial under firmware that does not flush",
        "confirm",
        armed_and_off,
        World::come_up,
    );
    lying.lying_firmware = true;
    let gate = scenario(
        "trial whose gate fails",
        "quarantine",
        |world| ready(world, Behaviour::FailsGate),
        World::come_up,
    );
    let refused = scenario(
        "trial that the firmware refuses",
        "loader",
        |world| ready(world, Behaviour::Refused),
        World::come_up,
    );
    let hangs = scenario(
        "trial that hangs until its tries are spent",
        "loader",
        |world| ready(world, Behaviour::HangsEarly),
        World::come_up,
    );
    vec![trial, lying, gate, refused, hangs]
}

fn damaged() -> Vec<Scenario> {
    let mut rebuild = scenario("boot without any record", "rebuild", lose_records, World::come_up);
    rebuild.promise.records_lost = true;
    let mut rotten = scenario(
        "boot of a slot that has decayed",
        "loader",
        |world| {
            world.second_release()?;
            world.stop();
            let sector =
                world.layout.slot(Slot::B).start / u64::from(world.layout.shape.sector_size);
            world.shared.lock().disk.damage(sector + 8, |bytes| bytes[100] ^= 1);
            Ok(())
        },
        World::come_up,
    );
    rotten.promise.slots_damaged = true;
    let mut altered = scenario(
        "boot of a slot whose kernel image has decayed",
        "loader",
        |world| {
            world.second_release()?;
            world.stop();
            let (_, image) = library(2)?;
            // The kernel image's last block lies before the trailer.
            let at = world.layout.slot(Slot::B).start + image.slot.len() as u64 - 2 * 4096;
            let sector = at / u64::from(world.layout.shape.sector_size);
            world.shared.lock().disk.damage(sector, |bytes| bytes[100] ^= 1);
            Ok(())
        },
        World::come_up,
    );
    altered.promise.slots_damaged = true;
    vec![rebuild, rotten, altered]
}

fn ready(world: &mut World, behaviour: Behaviour) -> Done {
    world.behaviours.insert(2, behaviour);
    armed_and_off(world)
}

fn lose_primary(world: &mut World) -> Done {
    world.shared.lock().disk.damage(1, |bytes| bytes[60] ^= 1);
    Ok(())
}

fn lose_records(world: &mut World) -> Done {
    world.second_release()?;
    world.stop();
    let places = world.layout.places();
    let unit = u64::from(world.layout.shape.sector_size);
    let mut machine = world.shared.lock();
    for place in places {
        machine.disk.damage(place.start / unit, |bytes| bytes.fill(0x11));
    }
    Ok(())
}

fn people() -> Vec<Scenario> {
    let back =
        scenario("rollback of a confirmed release", "rollback", World::second_release, |world| {
            world.roll_back().map_err(|failure| failure.message)?;
            world.reboot()
        });
    let disarm = scenario("rollback of an armed release", "rollback", armed, |world| {
        world.roll_back().map_err(|failure| failure.message)?;
        world.reboot()
    });
    let leave = scenario("rollback during a trial", "rollback", on_trial, |world| {
        world.roll_back().map_err(|failure| failure.message)?;
        world.gate_waits = false;
        world.power = Power::Off;
        world.come_up()
    });
    let stop = scenario("reboot in order during a trial", "stop", on_trial, |world| {
        world.stop();
        world.gate_waits = false;
        world.come_up()
    });
    let again = scenario("reboot in order", "stop", World::come_up, World::reboot);
    let mut all = vec![back, disarm, leave, stop, again];
    all.extend(installs());
    all
}

fn installs() -> Vec<Scenario> {
    fn install(world: &mut World) -> Done {
        library(3)?;
        world.make_anew(3)
    }
    let older = |world: &mut World| {
        world.second_release()?;
        world.stop();
        Ok(())
    };
    let mut over = scenario("install over an older one", "install", older, install);
    let old_table = |world: &mut World| {
        world.put_old_table();
        Ok(())
    };
    let mut foreign = scenario("install over something else", "install", old_table, install);
    for (it, sector_size) in [(&mut over, 4096), (&mut foreign, 512)] {
        it.promise = Promise { made_anew: Some(3), ..Promise::default() };
        it.shapes = vec![Shape::small(sector_size)];
    }
    vec![over, foreign]
}
