//! The limit on concurrent calls of a plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits the concurrent calls of one plugin, over all its instances in this process.
#[derive(Debug)]
pub struct CallLimit {
    running: AtomicUsize,
    max: usize,
}

/// A running call. Dropping it ends the call.
#[derive(Debug)]
pub(super) struct RunningCall(Arc<CallLimit>);

impl CallLimit {
    /// Creates a limit of `max` concurrent calls.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { running: AtomicUsize::new(0), max })
    }

    /// True if a synchronous call may start. Such a call is not counted, as it ends before another can start.
    pub(super) fn has_room(&self) -> bool {
        self.running.load(Ordering::Relaxed) < self.max
    }

    /// Starts a call.
    ///
    /// # Errors
    ///
    /// The maximum, if that many calls are running.
    pub(super) fn begin(self: &Arc<Self>) -> Result<RunningCall, usize> {
        let call = RunningCall(Arc::clone(self));
        // A refused call is counted until it is dropped, which can only refuse calls that start at the same moment.
        if self.running.fetch_add(1, Ordering::Relaxed) < self.max { Ok(call) } else { Err(self.max) }
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_end_or_are_refused_free_their_slot() {
        let calls = CallLimit::new(2);
        let first = calls.begin().unwrap();
        let _second = calls.begin().unwrap();
        assert_eq!(calls.begin().unwrap_err(), 2);
        assert_eq!(calls.begin().unwrap_err(), 2);
        drop(first);
        let _third = calls.begin().unwrap();
        assert_eq!(calls.begin().unwrap_err(), 2);
    }
}
