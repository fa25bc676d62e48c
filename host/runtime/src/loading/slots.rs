//! Bounds how many plugins are compiled at a time.

use std::sync::{Condvar, Mutex, PoisonError};

/// How many plugins are compiled at a time: each may use `max_compile_memory`, and one that takes long must not keep
/// the others waiting.
const SLOTS: usize = 2;

/// The compilations that may run.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to compile.
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(super) fn new() -> Self {
        Self { free: Mutex::new(SLOTS), freed: Condvar::new() }
    }

    /// Waits for a slot. A compiler process holds one for at most `compile_timeout`.
    pub(super) fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_sub(1);
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_add(1);
        self.0.freed.notify_one();
    }
}
