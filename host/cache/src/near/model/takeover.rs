//! A cluster in the model: another node takes the key over. The tracked connection leads to the node that had it, the plain
//! one to the node that has it.
//!
//! The node that lost the key may be cut off from the others, and answers reads and pings until it learns of the loss. So
//! its value counts as current until then: it would answer a read without a near tier with it.

use super::steps::{Bounds, Broken, Step};
use super::world::World;
use crate::near::feeds::{Feed, Stamp};
use crate::near::parts::Parts;

/// The part of the key.
const PART: u16 = 7;

#[derive(Debug, Default, Clone, Copy, Hash)]
pub(super) struct Takeover {
    /// The version that the node had at the takeover.
    kept: Option<usize>,
    does_node_know: bool,
    does_process_know: bool,
}

/// What the node answers to a ping.
fn parts(has_part: bool) -> Parts {
    let mut parts = Parts::none();
    if has_part {
        parts.insert(PART);
    }
    parts
}

/// Opens the feed of the node.
pub(super) fn prepare(feed: &Feed, bounds: &Bounds) {
    if bounds.is_known {
        feed.has_parts(parts(true));
    }
}

impl Takeover {
    /// Whether the node refuses calls of the key.
    pub(super) fn is_refused(self) -> bool {
        self.does_node_know
    }

    /// Whether calls go to the new node.
    pub(super) fn is_followed(self) -> bool {
        self.does_process_know
    }

    /// The version that the node without the key answers with.
    pub(super) fn kept(self) -> Option<usize> {
        self.kept
    }

    /// Whether this version is the one that the node still answers with.
    pub(super) fn is_current(self, version: usize) -> bool {
        self.kept == Some(version) && !self.does_node_know
    }

    /// A write to the node without the key would be lost, whatever the tier does.
    pub(super) fn loses_writes(self) -> bool {
        self.kept.is_some() && !self.does_process_know
    }
}

impl World {
    pub(super) fn takeover_steps(&self) -> Vec<Step> {
        let takeover = &self.takeover;
        let (is_over, mut steps) = (takeover.kept.is_some(), Vec::new());
        if self.bounds.takeovers > 0 && !self.is_writing() {
            steps.push(Step::TakeOver);
        }
        if is_over && !takeover.does_node_know {
            steps.push(Step::Learn);
        }
        if is_over && !takeover.does_process_know {
            steps.push(Step::NewMap);
        }
        steps
    }

    pub(super) fn take_over(&mut self) {
        self.bounds.takeovers -= 1;
        self.takeover.kept = Some(self.newest());
    }

    pub(super) fn learn(&mut self) {
        self.takeover.does_node_know = true;
        let kept = self.takeover.kept.unwrap();
        if kept < self.newest() {
            self.replaced(kept);
        }
    }

    /// The process learns it from a redirect or from another node, and reads the key there from now on.
    pub(super) fn follow(&mut self) {
        if !self.takeover.does_process_know {
            self.takeover.does_process_know = true;
            self.feed.flush();
        }
    }

    /// The state of the feed before a read.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match self.broken {
            _ if self.takeover.does_process_know => None,
            Some(Broken::KeepUnknown) => self.feed.stamp(),
            _ => self.feed.stamp_of(|| PART),
        }
    }

    /// The answer to a ping says whether the node has the key.
    pub(super) fn learn_parts(&mut self, has_part: bool) {
        if self.broken != Some(Broken::PingOnly) && self.feed.has_parts(parts(has_part)) {
            self.follow();
        }
    }
}
