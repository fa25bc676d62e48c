//! What happens in a run: the scenes in an order that follows from a seed, and the choices of callers.

use std::time::Duration;

/// A sequence of numbers that follows from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub(super) fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    pub(super) fn milliseconds(&mut self, from: u64, until: u64) -> Duration {
        Duration::from_millis(from + self.below(until - from))
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    /// Another sequence for a part of the run.
    pub(super) fn branch(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }
}

/// What befalls the hosts and the servers for a while. All callers go on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Scene {
    /// Nothing.
    Calm,
    /// The network delivers late.
    Delay,
    /// The network delivers nothing to a host and nothing from it.
    Silence,
    /// The network delivers only in one direction.
    HalfSilence,
    /// One connection of a host is silent for a moment, and the others are not.
    OneSilent,
    /// The network delivers replies, and nothing from the first announcement on.
    HeldAnnouncements,
    /// Connections are reset while another program writes.
    Cut,
    /// The server is stopped for a while (SIGSTOP).
    StoppedServer,
    /// A host is stopped for a while (SIGSTOP).
    StoppedHost,
    /// The server has too little memory, and another program fills it.
    Eviction,
    /// The server ends and starts again, without a key.
    Crash,
    /// A write by another program is part of a long turn of the server, in which pings arrive too; the announcement is
    /// held.
    LongTurn,
    /// The primary ends, and its replica takes over.
    FailOver,
    /// The slot of a key moves to another node of a cluster.
    MovedSlot,
    /// The same in one step of Valkey 9.
    MovedAtOnce,
}

impl Scene {
    /// The scenes of a run against one server, with how often each comes.
    pub(super) const SINGLE: [(Self, u64); 12] = [
        (Self::Calm, 1),
        (Self::Delay, 1),
        (Self::Silence, 2),
        (Self::HalfSilence, 1),
        (Self::OneSilent, 2),
        (Self::HeldAnnouncements, 1),
        (Self::Cut, 2),
        (Self::StoppedServer, 1),
        (Self::StoppedHost, 1),
        (Self::Eviction, 1),
        (Self::Crash, 1),
        (Self::LongTurn, 6),
    ];

    /// Those of a run against a primary that sentinels name, to which no relay leads.
    pub(super) const SENTINEL: [(Self, u64); 3] = [(Self::Calm, 1), (Self::StoppedHost, 1), (Self::FailOver, 1)];

    /// Those of a run against a cluster.
    pub(super) const CLUSTER: [(Self, u64); 4] =
        [(Self::Calm, 1), (Self::StoppedHost, 1), (Self::MovedSlot, 2), (Self::FailOver, 1)];

    /// Those of a run against a cluster of Valkey 9.
    pub(super) const CLUSTER_9: [(Self, u64); 4] =
        [(Self::Calm, 1), (Self::StoppedHost, 1), (Self::MovedAtOnce, 4), (Self::FailOver, 1)];
}

/// The scenes of a run, in the order that the seed gives.
pub(super) fn plan(scenes: &[(Scene, u64)], seed: u64) -> Vec<Scene> {
    let mut dice = Dice::new(seed);
    let mut plan: Vec<(u64, Scene)> = Vec::new();
    for (scene, times) in scenes {
        plan.extend((0..*times).map(|_| (dice.below(u64::MAX), *scene)));
    }
    plan.sort_unstable();
    plan.into_iter().map(|(_, scene)| scene).collect()
}
