//! The beginning of a run: in the task of its connection, which saves a short run a task of its own and the wakes
//! between the two.

// Decision: docs/decisions/0087-a-request-begins-in-the-task-of-its-connection.md

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// A run that has begun.
pub(super) enum Begun<T> {
    Ended(T),
    /// It goes on in a task of its own.
    Spawned(JoinHandle<T>),
    Panicked,
}

impl<T> Begun<T> {
    /// Waits until the run has ended. `None` if it panicked.
    pub(super) async fn ended(self) -> Option<T> {
        match self {
            Self::Ended(ended) => Some(ended),
            Self::Spawned(task) => task.await.ok(),
            Self::Panicked => None,
        }
    }
}

/// Begins a run once the tasks in the queue of this worker thread have been polled. It is polled here once, if `is_calm`
/// then says so, and goes on in a task of its own if it has to wait. If this is dropped before, the run does not begin.
/// `kept` is dropped once the run has ended, and after it has left the current span.
pub(super) async fn begin<R>(run: R, kept: impl Send + 'static, is_calm: impl Fn() -> bool) -> Begun<R::Output>
where
    R: Future<Output: Send + 'static> + Send + 'static,
{
    let mut run = Box::pin(run);
    go_last().await;
    if !is_calm() {
        return spawn(run, kept);
    }
    // As in a task of its own, a panic ends the run and not the connection.
    let polled = poll_fn(|context| Poll::Ready(catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(context))))).await;
    match polled {
        Ok(Poll::Ready(ended)) => Begun::Ended(ended),
        Ok(Poll::Pending) => spawn(run, kept),
        Err(_panic) => Begun::Panicked,
    }
}

fn spawn<R>(run: Pin<Box<R>>, kept: impl Send + 'static) -> Begun<R::Output>
where
    R: Future<Output: Send + 'static> + Send + 'static,
{
    let run = run.in_current_span();
    Begun::Spawned(tokio::spawn(async move {
        let ended = run.await;
        drop(kept);
        ended
    }))
}

/// Lets the tasks in the queue go first. A worker thread polls the task that was woken last first, so that without this a
/// few busy connections would be served before all others.
pub(super) async fn go_last() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_run_that_does_not_wait_has_no_task_of_its_own() {
        let here = tokio::spawn(async {
            let here = tokio::task::id();
            let run = begin(async { tokio::task::id() }, (), || true).await;
            assert!(matches!(run, Begun::Ended(id) if id == here));
        });
        here.await.unwrap();
    }

    #[tokio::test]
    async fn a_run_that_waits_goes_on_when_the_connection_is_gone() {
        let (go, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let run = {
            let (go, ended) = (Arc::clone(&go), Arc::clone(&ended));
            async move {
                go.notified().await;
                ended.notify_one();
            }
        };
        let begun = begin(run, (), || true).await;
        assert!(matches!(begun, Begun::Spawned(_)));
        drop(begun);
        go.notify_one();
        ended.notified().await;
    }

    #[tokio::test]
    async fn while_plugins_compute_a_run_begins_in_a_task_of_its_own() {
        let begun = begin(async { 1 }, (), || false).await;
        assert!(matches!(begun, Begun::Spawned(_)));
        assert_eq!(begun.ended().await, Some(1));
    }

    async fn panics() {
        panic!("on purpose");
    }

    #[tokio::test]
    async fn a_run_that_panics_does_not_end_the_task_of_the_connection() {
        for is_calm in [true, false] {
            let begun = begin(panics(), (), || is_calm).await;
            assert_eq!(begun.ended().await, None);
        }
    }

    #[tokio::test]
    async fn a_run_begins_behind_the_tasks_in_the_queue() {
        let earlier = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let earlier = Arc::clone(&earlier);
            tokio::spawn(async move { earlier.fetch_add(1, Ordering::Relaxed) });
        }
        let begun = begin(async move { earlier.load(Ordering::Relaxed) }, (), || true).await;
        assert!(matches!(begun, Begun::Ended(3)));
    }

    #[tokio::test]
    async fn a_run_whose_connection_ends_before_does_not_begin() {
        let has_begun = Arc::new(AtomicBool::new(false));
        let run = {
            let has_begun = Arc::clone(&has_begun);
            async move { has_begun.store(true, Ordering::Relaxed) }
        };
        tokio::select! {
            biased;
            _ = begin(run, (), || true) => panic!("it goes last"),
            () = std::future::ready(()) => {}
        }
        tokio::task::yield_now().await;
        assert!(!has_begun.load(Ordering::Relaxed));
    }
}
