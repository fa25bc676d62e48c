//! Whether requests find no place: then a client that sends nothing has less time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The host is crowded for this long after it refused a request. Longer than the time between two looks at an upload.
const MEMORY: Duration = Duration::from_secs(2);

/// When a request was last refused because all places were taken.
#[derive(Debug)]
pub(super) struct Crowd {
    epoch: Instant,
    /// In milliseconds from the epoch; 0 if never.
    refused: AtomicU64,
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), refused: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Notes that a request was refused.
    pub(super) fn note_refusal(&self) {
        self.refused.store(self.now(), Ordering::Relaxed);
    }

    /// True if a request was refused shortly before.
    pub(super) fn is_crowded(&self) -> bool {
        match self.refused.load(Ordering::Relaxed) {
            0 => false,
            refused => u128::from(self.now().saturating_sub(refused)) <= MEMORY.as_millis(),
        }
    }
}
