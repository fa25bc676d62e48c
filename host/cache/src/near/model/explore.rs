//! The exploration: every order of the steps of a world, each state once.

use std::collections::HashSet;

use super::steps::{Bounds, Broken, Step};
use super::world::World;

#[derive(Debug, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) hits: u64,
    pub(super) joins: u64,
    /// The first promise that was broken, and the steps to it.
    pub(super) violation: Option<String>,
}

// Decision: docs/decisions/0078-the-core-of-the-near-tier-is-explored-by-replay.md
/// Explores until all states were visited or a promise is broken. The core cannot be copied, so a branch is reached by
/// taking its steps again from the start.
pub(super) fn explore(bounds: Bounds, broken: Option<Broken>) -> Explored {
    let mut explored = Explored::default();
    let mut seen = HashSet::new();
    let mut branches: Vec<Vec<Step>> = vec![Vec::new()];
    while let Some(mut path) = branches.pop() {
        let mut world = World::new(bounds, broken);
        // The last step of a branch is new; those before it were taken and counted already.
        let mut next = path.pop();
        for step in &path {
            world.take(*step);
        }
        loop {
            if let Some(step) = next {
                let (hits, joins) = (world.hits, world.joins);
                world.take(step);
                explored.hits += world.hits - hits;
                explored.joins += world.joins - joins;
                path.push(step);
            }
            if let Some(violation) = world.violation.take() {
                explored.violation = Some(format!("{violation}, after {path:?}"));
                return explored;
            }
            if !seen.insert(world.fingerprint()) {
                break;
            }
            explored.states += 1;
            let mut steps = world.steps();
            next = steps.pop();
            if next.is_none() {
                break;
            }
            branches.extend(steps.into_iter().map(|step| [&path[..], &[step]].concat()));
        }
    }
    explored
}
