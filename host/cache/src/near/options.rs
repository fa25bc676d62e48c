//! The options of a near tier.

use std::time::Duration as StdDuration;

use crate::key::Namespace;
use crate::ram::least_capacity;

/// The options of a near tier: the memory of this process in front of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearOptions {
    /// The maximum size of the entries in bytes, counted as a RAM cache counts. Defaults to 64 MiB.
    pub max_bytes: u64,
    /// A value that is served near was on the server at some time within this duration. From
    /// [`NearOptions::LEAST_STALENESS`] to [`NearOptions::MOST_STALENESS`]; another one is replaced by the nearest of
    /// them. Defaults to 1 s.
    pub max_staleness: StdDuration,
    /// The maximum length in bytes of a value that is kept near. Longer ones are read from the server each time.
    /// Defaults to 64 KiB.
    pub max_value_bytes: usize,
    /// The longest time for which a value is kept near; `None`, the default, for no maximum but its expiry.
    pub max_expire: Option<StdDuration>,
    /// The bytes that are reserved for the entries of namespaces, which evict only each other. Defaults to none.
    pub shares: Vec<(Namespace, u64)>,
}

impl NearOptions {
    /// The least `max_staleness`, 100 ms.
    pub const LEAST_STALENESS: StdDuration = StdDuration::from_millis(100);
    /// The greatest `max_staleness`, 60 s.
    pub const MOST_STALENESS: StdDuration = StdDuration::from_secs(60);

    /// The least `max_bytes` of a tier that keeps values of this length.
    pub fn least_bytes(max_value_bytes: usize) -> u64 {
        least_capacity(max_value_bytes)
    }

    /// `max_staleness` within its limits.
    pub(super) fn staleness(&self) -> StdDuration {
        self.max_staleness.clamp(Self::LEAST_STALENESS, Self::MOST_STALENESS)
    }
}

impl Default for NearOptions {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_staleness: StdDuration::from_secs(1),
            max_value_bytes: 64 << 10,
            max_expire: None,
            shares: Vec::new(),
        }
    }
}
