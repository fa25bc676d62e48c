//! Lets other tasks run while a task reads what a fast peer sends.

use std::task::{Context, Poll};

/// The bytes that a task reads before it lets the others run. hyper reads on within one poll as long as there is more.
pub(crate) const MAX_READ: usize = 32 << 10;

/// Counts the bytes that are read from one connection without a pause.
#[derive(Debug, Default)]
pub(crate) struct Pace(usize);

impl Pace {
    /// Pending if the task has read `max` bytes and must let others run first. It is then woken at once.
    pub(crate) fn poll(&mut self, context: &Context<'_>, max: usize) -> Poll<()> {
        if self.0 < max {
            return Poll::Ready(());
        }
        self.0 = 0;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Counts a read; `None` if there was nothing to read, which is a pause.
    pub(crate) fn note(&mut self, read: Option<usize>) {
        self.0 = read.map_or(0, |read| self.0.saturating_add(read));
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_task_that_reads_much_pauses_once() {
        let context = Context::from_waker(Waker::noop());
        let mut pace = Pace::default();
        pace.note(Some(MAX_READ - 1));
        assert!(pace.poll(&context, MAX_READ).is_ready());
        pace.note(Some(1));
        assert!(pace.poll(&context, MAX_READ).is_pending());
        assert!(pace.poll(&context, MAX_READ).is_ready());
        pace.note(Some(MAX_READ));
        pace.note(None);
        assert!(pace.poll(&context, MAX_READ).is_ready());
    }
}
