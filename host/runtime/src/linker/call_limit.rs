//! How many calls the instances of one plugin have under way at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The calls of one plugin, over all its instances in this process.
#[derive(Debug)]
pub struct CallLimit {
    under_way: AtomicUsize,
    max: usize,
}

/// A call under way; over when it is dropped.
#[derive(Debug)]
pub(super) struct Call(Arc<CallLimit>);

impl CallLimit {
    /// At most `max` at once.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { under_way: AtomicUsize::new(0), max })
    }

    /// Whether a call may begin that is over as soon as it begins, and so need not be counted.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) < self.max
    }

    /// Begins a call, or answers the limit where as many are under way.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Call, usize> {
        let call = Call(Arc::clone(self));
        // Who is refused counts for a moment, which can only refuse others who come at that moment.
        if self.under_way.fetch_add(1, Ordering::Relaxed) < self.max { Ok(call) } else { Err(self.max) }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_over_or_refused_makes_room_again() {
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
