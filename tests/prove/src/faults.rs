//! Damage that no power cut makes: lost and contradicting records, foreign partition tables, sectors
//! that do not read or do not take writes, a disk that lies about its size.
//!
//! Wherever something whole is left the machine comes up on it; and nothing is ever written outside
//! the record's places, the other slot during an update, and the table by os-init.

use partition_layout::boot_state::{Action, Event};
use partition_layout::gpt::Table;
use partition_layout::guid::{self, Guid};
use partition_layout::places::PLACES;
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use updater::engine::plan::Outcome;
use updater::failure::Class;

use crate::layout::Shape;
use crate::scenarios::{Done, library};
use crate::update::by_hand;
use crate::world::{Power, World};
use strict_disk::random::Random;

/// A kind of damage to a sector, and its name.
type Way = (&'static str, fn(&mut [u8]));

/// What came of it.
#[derive(Debug, Default)]
pub struct Faults {
    /// Damaged machines that were started.
    pub states: u64,
    /// The first broken promise, with its history.
    pub broken: Option<(String, Vec<String>)>,
    /// Cases, tried or not.
    cases: u64,
    /// Of so many cases one is tried.
    one_in: u64,
}

/// Tries every kind of damage on disks with small and with large sectors: one case in `one_in`, and
/// so many `samples` where there is no end of cases.
#[must_use]
pub fn all(seed: u64, samples: u64, one_in: u64) -> Faults {
    let mut faults = Faults { one_in, ..Faults::default() };
    for sector_size in [512, 4096] {
        let base = World::factory(Shape::small(sector_size), 1)
            .and_then(|mut world| world.second_release().map(|()| world));
        let mut base = match base {
            Ok(world) => world,
            Err(what) => {
                faults.broken.get_or_insert((what, Vec::new()));
                continue;
            }
        };
        base.stop();
        base.trail = vec![format!("release 1 in slot A, 2 in slot B, sectors of {sector_size}")];
        let mut random = Random::new(seed ^ u64::from(sector_size));
        faults.records(&base);
        faults.ties(&base);
        faults.tables(&base, &mut random, samples);
        faults.unreadable(&base);
        faults.stuck(&base, &mut random, samples);
        faults.sizes(&base);
    }
    faults
}

impl Faults {
    fn check(&mut self, base: &World, what: &str, damage: impl FnOnce(&mut World) -> Done) {
        self.check_with(base, what, damage, comes_up);
    }

    fn check_with(
        &mut self,
        base: &World,
        what: &str,
        damage: impl FnOnce(&mut World) -> Done,
        then: impl FnOnce(&mut World) -> Done,
    ) {
        self.cases += 1;
        if self.broken.is_some() || !self.cases.is_multiple_of(self.one_in) {
            return;
        }
        self.states += 1;
        let mut world = base.fork();
        world.say(what);
        let done = damage(&mut world).and_then(|()| then(&mut world));
        if let Err(broken) = done.and_then(|()| world.check_accesses()) {
            self.broken = Some((broken, std::mem::take(&mut world.trail)));
        }
    }

    /// Any and all places lost, in four ways: one that is left decides; without any, the trailers.
    fn records(&mut self, base: &World) {
        let ways: [Way; 3] = [
            ("garbage", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a)),
            ("zeros", |bytes| bytes.fill(0)),
            // The field's favourite: a copy whose tail was not written.
            ("tail not written", |bytes| bytes[256..512].fill(0)),
        ];
        let unit = u64::from(base.layout.shape.sector_size);
        for lost in 1..1_u32 << PLACES {
            let places: Vec<u64> =
                (0..PLACES as u64).filter(|place| lost >> place & 1 == 1).collect();
            for (way, damage) in ways {
                let what = format!("record places {places:?}: {way}");
                self.check(base, &what, |world| {
                    for place in &places {
                        let sector = world.layout.place(*place).start / unit;
                        world.shared.lock().disk.damage(sector, damage);
                    }
                    Ok(())
                });
            }
            self.check(base, &format!("record places {places:?}: unreadable"), |world| {
                for place in &places {
                    let sector = world.layout.place(*place).start / unit;
                    world.shared.lock().disk.unreadable.insert(sector);
                }
                Ok(())
            });
        }
    }

    /// Two places with the same, newest generation and different content: the lower one is believed,
    /// by everybody.
    fn ties(&mut self, base: &World) {
        let unit = u64::from(base.layout.shape.sector_size);
        for first in 0..PLACES as u64 {
            for second in 0..PLACES as u64 {
                if first == second {
                    continue;
                }
                let what = format!("places {first} and {second} hold one generation, A and B");
                self.check(base, &what, |world| {
                    let record = world.record().ok_or("no record")?;
                    let generation = record.generation + 5;
                    for (place, default) in [(first, Slot::A), (second, Slot::B)] {
                        let tied = Record { generation, default, ..record.clone() };
                        let sector = world.layout.place(place).start / unit;
                        let bytes = tied.encode();
                        let mut machine = world.shared.lock();
                        machine.disk.damage(sector, |old| old[..512].copy_from_slice(&bytes));
                    }
                    Ok(())
                });
            }
        }
    }

    /// Every sector of either copy of the table spoiled, both copies, and foreign tables with right
    /// checksums.
    fn tables(&mut self, base: &World, random: &mut Random, samples: u64) {
        let unit = u64::from(base.layout.shape.sector_size);
        let Some(made) = current_table(base) else {
            self.broken.get_or_insert(("no table".into(), Vec::new()));
            return;
        };
        let [backup, primary] = made.writes();
        let sectors = |write: &partition_layout::gpt::Write| {
            let first = write.at / unit;
            first..first + write.data.len() as u64 / unit
        };
        for copy in [&primary, &backup] {
            for sector in sectors(copy) {
                for pattern in [0x00, 0xff, 0x5a] {
                    let what = format!("sector {sector} of the table: filled with {pattern:#x}");
                    self.check(base, &what, |world| {
                        world.shared.lock().disk.damage(sector, |bytes| bytes.fill(pattern));
                        Ok(())
                    });
                }
            }
        }
        for one in sectors(&primary) {
            for other in sectors(&backup) {
                let what = format!("sectors {one} and {other} of the tables: garbage");
                let damage = |world: &mut World| {
                    for sector in [one, other] {
                        let mut machine = world.shared.lock();
                        machine.disk.damage(sector, |bytes| {
                            bytes.iter_mut().for_each(|byte| *byte ^= 0x77);
                        });
                    }
                    Ok(())
                };
                self.check_with(base, &what, damage, writes_nothing_else);
            }
        }
        for _ in 0..samples {
            let foreign = foreign(&made, random);
            let what = format!("a foreign table: {:?}", foreign.entries);
            let damage = |world: &mut World| {
                // It may point anywhere, and looking is no harm.
                let size = world.shared.lock().disk.true_size();
                world.shared.lock().disk.zero(0..size);
                for write in foreign.writes() {
                    world.shared.lock().disk.put(write.at, &write.data);
                }
                Ok(())
            };
            self.check_with(base, &what, damage, writes_nothing_else);
        }
    }

    /// Every sector that is read on the way, one at a time.
    fn unreadable(&mut self, base: &World) {
        let unit = u64::from(base.layout.shape.sector_size);
        let size = u64::try_from(library(2).map_or(0, |(_, image)| image.slot.len())).unwrap_or(0);
        let slot_b = base.layout.slot(Slot::B).start;
        let mut sectors: Vec<u64> = (slot_b / unit..(slot_b + size) / unit).collect();
        sectors.extend(1..34);
        sectors.extend(base.layout.places().iter().map(|place| place.start / unit));
        for sector in sectors {
            let what =
                format!("sector {sector} ({}) does not read", base.layout.name(sector * unit));
            self.check(base, &what, |world| {
                world.shared.lock().disk.unreadable.insert(sector);
                Ok(())
            });
        }
    }

    /// Sectors that take a write and keep the old content, or refuse it: nothing is sealed on them.
    fn stuck(&mut self, base: &World, random: &mut Random, samples: u64) {
        let unit = u64::from(base.layout.shape.sector_size);
        let image = match library(3) {
            Ok((_, image)) => image,
            Err(what) => {
                self.broken.get_or_insert((what, Vec::new()));
                return;
            }
        };
        let start = base.layout.slot(Slot::A).start / unit;
        let length = image.slot.len() as u64 / unit;
        let mut cases: Vec<(Vec<u64>, bool)> = Vec::new();
        for silently in [true, false] {
            cases.extend((0..length).map(|sector| (vec![start + sector], silently)));
            let places = base.layout.places();
            cases.extend((1..1_u32 << PLACES).step_by(3).map(|lost| {
                let broken = places.iter().enumerate().filter(|(n, _)| lost >> n & 1 == 1);
                (broken.map(|(_, place)| place.start / unit).collect(), silently)
            }));
        }
        for _ in 0..samples / 4 {
            let sectors = (0..1 + random.below(4)).map(|_| start + random.below(length)).collect();
            cases.push((sectors, random.chance(500)));
        }
        for (sectors, silently) in cases {
            let word = if silently { "keep what they hold" } else { "refuse writes" };
            let what = format!("sectors {sectors:?} {word}, then an apply over release 1");
            let damage = |world: &mut World| {
                world.come_up()?;
                let mut machine = world.shared.lock();
                let set =
                    if silently { &mut machine.disk.stuck } else { &mut machine.disk.unwritable };
                set.extend(&sectors);
                Ok(())
            };
            self.check_with(base, &what, damage, |world| {
                let before = world.shared.lock().acknowledged;
                match world.install(&image, by_hand(), None) {
                    Ok(Outcome::Armed) if world.holds(Slot::A) != Some(3) => {
                        return Err("armed, and the slot is not whole".into());
                    }
                    Ok(_) => {}
                    Err(failure) if matches!(failure.class, Class::Disk | Class::State) => {}
                    Err(failure) => return Err(format!("blames {:?}", failure.class)),
                }
                check_told(world, before)?;
                world.stop();
                comes_up(world)
            });
        }
    }

    /// A disk that tells another size than it has.
    fn sizes(&mut self, base: &World) {
        let true_size = base.layout.shape.front + (20 << 20);
        let slot_b = base.layout.slot(Slot::B).start;
        for claim in [1 << 10, true_size, slot_b + 8192, 1 << 33, 1 << 45, u64::MAX / 8192 * 4096] {
            let damage = |world: &mut World| {
                let mut machine = world.shared.lock();
                // What lies where the claim points is nobody's; it may be read.
                machine.disk.zero(0..1 << 60);
                machine.disk.claims = Some(claim);
                Ok(())
            };
            let what = format!("the disk tells a size of {claim}");
            self.check_with(base, &what, damage, |world| {
                let size = world.shared.lock().disk.true_size();
                // Larger than the truth: the primary table is whole and enough.
                if claim > size { comes_up(world) } else { writes_nothing_else(world) }
            });
        }
    }
}

fn current_table(world: &World) -> Option<Table> {
    partition_layout::gpt::read(&mut world.shared.clone()).ok().map(|(table, _)| table)
}

/// It comes up on something whole, and the record can be told of it.
fn comes_up(world: &mut World) -> Done {
    world.come_up()?;
    let Power::Up { slot, .. } = world.power else {
        return Err(format!("no slot came up: {:?}", world.power));
    };
    world.holds(slot).ok_or("what runs is not whole")?;
    Ok(())
}

/// It starts, whatever comes of it; where it is up, nothing but the record is written.
fn writes_nothing_else(world: &mut World) -> Done {
    for _ in 0..3 {
        world.start()?;
        if let Power::Up { slot, .. } = world.power {
            world.holds(slot).ok_or("what runs is not whole")?;
            // However the record takes it.
            let told = world.tell(slot, Event::GateOpen);
            if matches!(told, Ok((Action::Reboot, _))) {
                return Err("an open gate reboots".into());
            }
        }
        world.check_accesses()?;
        world.power = Power::Off;
    }
    Ok(())
}

/// What was acknowledged can be read.
fn check_told(world: &World, before: u64) -> Done {
    let acknowledged = world.shared.lock().acknowledged;
    let newest = world.record().map_or(0, |record| record.generation);
    if newest < acknowledged {
        return Err(format!("record {acknowledged} was acknowledged, {newest} is the newest"));
    }
    if acknowledged < before { Err("acknowledged went back".into()) } else { Ok(()) }
}

/// A table that is not the machine's, with right checksums.
fn foreign(made: &Table, random: &mut Random) -> Table {
    let mut table = made.clone();
    let kinds = [guid::ESP, guid::RECORD, guid::SLOT_A, guid::SLOT_B, guid::STATE, Guid([9; 16])];
    for _ in 0..=random.below(3) {
        let count = table.entries.len() as u64;
        let index = usize::try_from(random.below(count)).unwrap_or(0);
        let Some((_, entry)) = table.entries.get_mut(index) else { continue };
        match random.below(5) {
            0 => entry.kind = random.pick(&kinds).copied().unwrap_or(guid::ESP),
            1 => entry.first = entry.first.saturating_add(random.below(4096)),
            2 => entry.last = entry.last.saturating_sub(random.below(entry.sectors())),
            3 => entry.first = entry.first.saturating_sub(random.below(4096)),
            _ => {
                table.entries.remove(index);
            }
        }
        if table.entries.is_empty() {
            break;
        }
    }
    table
}
