//! A model checker over the real slot rules: every state that a bounded world can reach, and every
//! endless loop in it.
//!
//! Safety is asserted while the states are found (see `model/world.rs`): a trial's try is on the
//! disk before it starts; tries and refunds only fall; a slot is overwritten only from one that
//! was confirmed in this boot; a held digest is not armed; nothing ends in recovery while a whole
//! slot loads. Liveness is checked afterwards: left alone, a machine with a slot that can come up
//! comes up.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

#[path = "model/world.rs"]
mod world;

use partition_layout::record::Content;
use partition_layout::slot::Slot;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use world::{Budget, Mover, Power, Reached, State, Truth, World, looks_like_power_cuts};

/// A state and how it was found.
struct Found {
    state: State,
    from: usize,
    by: String,
    /// What happens by itself.
    progress: Vec<usize>,
}

struct Graph {
    world: World,
    found: Vec<Found>,
}

impl Graph {
    fn explore(budget: Budget) -> Self {
        let mut world = World::default();
        let start = world.start(budget);
        let mut known = HashMap::from([(start, 0)]);
        let first = Found { state: start, from: 0, by: String::new(), progress: Vec::new() };
        let mut graph = Self { world, found: vec![first] };
        let mut next = 0;
        while next < graph.found.len() {
            let state = graph.found[next].state;
            for step in graph.world.moves(&state) {
                let index = match known.entry(step.to) {
                    Entry::Occupied(entry) => *entry.get(),
                    Entry::Vacant(entry) => {
                        let index = *entry.insert(graph.found.len());
                        graph.found.push(Found {
                            state: step.to,
                            from: next,
                            by: step.name,
                            progress: Vec::new(),
                        });
                        index
                    }
                };
                if step.by == Mover::Progress {
                    graph.found[next].progress.push(index);
                }
            }
            next += 1;
        }
        graph
    }

    /// The way to a state, for a failure's message.
    fn trail(&self, mut index: usize) -> String {
        let mut steps = Vec::new();
        while index != 0 {
            steps.push(self.found[index].by.clone());
            index = self.found[index].from;
        }
        steps.reverse();
        steps.join("\n  ")
    }

    fn is_up(&self, index: usize) -> bool {
        matches!(
            self.found[index].state.power,
            Power::Up { reached: Reached::Confirmed | Reached::Degraded | Reached::Broken, .. }
        )
    }

    /// Whether a loop through this state would be a fault of the rules.
    fn must_leave(&self, index: usize) -> bool {
        let state = &self.found[index].state;
        let Some(record) = self.world.record(state) else { return false };
        let can_come_up = Slot::ALL.into_iter().any(|slot| {
            let sealed = record.slot(slot).content == Content::Sealed;
            let comes_up = matches!(state.truth[slot.index()],
                Truth::Image { kind, .. } if kind.comes_up());
            sealed && comes_up
        });
        // A record that nobody can write cannot remember a failure.
        can_come_up && state.loader_writes && !looks_like_power_cuts(record, &state.truth)
    }

    /// Loops of what happens by itself, in which the machine is never up.
    fn endless_loops(&self) -> Vec<usize> {
        #[derive(Clone, Copy, PartialEq)]
        enum Colour {
            White,
            Open,
            Done,
        }
        let mut colours = vec![Colour::White; self.found.len()];
        let mut loops = Vec::new();
        for root in 0..self.found.len() {
            // Depth first, with an own stack: (state, which edge is next).
            let mut stack = vec![(root, 0)];
            while let Some((index, edge)) = stack.pop() {
                if edge == 0 {
                    if colours[index] != Colour::White || self.is_up(index) {
                        continue;
                    }
                    colours[index] = Colour::Open;
                }
                let Some(&to) = self.found[index].progress.get(edge) else {
                    colours[index] = Colour::Done;
                    continue;
                };
                stack.push((index, edge + 1));
                if colours[to] == Colour::Open {
                    loops.push(to);
                } else {
                    stack.push((to, 0));
                }
            }
        }
        loops
    }
}

fn check(name: &str, budget: Budget) {
    let graph = Graph::explore(budget);
    let loops = graph.endless_loops();
    println!("{name}: {} states, {} loops that no rule can end", graph.found.len(), loops.len());
    for index in loops {
        assert!(
            !graph.must_leave(index),
            "{name}: an endless loop although a slot can come up, after\n  {}\n{:?}\n{}",
            graph.trail(index),
            graph.found[index].state,
            graph.world.words(&graph.found[index].state),
        );
    }
    // Left alone, everything that does not loop ends up, or in recovery (asserted there).
    for (index, found) in graph.found.iter().enumerate() {
        let ends = found.progress.is_empty();
        let is_end = graph.is_up(index) || found.state.power == Power::Recovery;
        assert!(!ends || is_end, "{name}: stands still after\n  {}", graph.trail(index));
    }
}

const NOTHING: Budget = Budget { cuts: 0, faults: 0, updates: 0, arms: 0, rollbacks: 0, stops: 0 };

#[test]
fn two_updates_and_power_cuts_anywhere() {
    check("updates", Budget { cuts: 2, updates: 2, arms: 2, stops: 1, ..NOTHING });
}

#[test]
fn an_update_decays_and_lost_or_read_only_records() {
    check("faults", Budget { faults: 2, updates: 1, arms: 1, stops: 1, ..NOTHING });
}

#[test]
fn an_update_a_fault_and_a_power_cut() {
    check("mixed", Budget { cuts: 1, faults: 1, updates: 1, arms: 1, stops: 1, ..NOTHING });
}

#[test]
fn rollbacks_there_and_back() {
    check("rollbacks", Budget { cuts: 1, updates: 1, arms: 1, rollbacks: 2, stops: 1, ..NOTHING });
}
