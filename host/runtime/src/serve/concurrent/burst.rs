//! Bursts: an instance that lets others go first is polled again at once, as long as it is not for long.
//!
//! wasmtime lets the executor go first before each task of a plugin that has yielded, and a short response of WASI 0.3 takes
//! several such tasks. Without bursts, many requests at the same time would each wait for a poll of the instance for each
//! task of all others.

// Decision: docs/decisions/0113-an-instance-of-wasi-0-3-is-polled-in-bursts.md

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The length after which no further poll begins: far longer than the tasks of a short response take, and far shorter than a
/// turn.
const LENGTH: Duration = Duration::from_millis(1);

/// Polls one future in bursts.
pub(super) struct Bursts {
    length: Duration,
    notice: Option<(Arc<Notice>, Waker)>,
}

/// Notices that the future was woken, and passes the wake on.
struct Notice {
    task: Waker,
    is_woken: AtomicBool,
}

impl Default for Bursts {
    fn default() -> Self {
        Self { length: LENGTH, notice: None }
    }
}

impl Bursts {
    /// Polls the future until it is ready, waits for others, or the burst has lasted for its length.
    pub(super) fn poll<F: Future>(&mut self, mut future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = Instant::now();
        let known = self.notice.take_if(|(notice, _)| notice.task.will_wake(context.waker()));
        let (notice, waker) = self.notice.insert(known.unwrap_or_else(|| {
            let notice = Arc::new(Notice { task: context.waker().clone(), is_woken: AtomicBool::new(false) });
            (Arc::clone(&notice), Waker::from(notice))
        }));
        loop {
            notice.is_woken.store(false, Ordering::SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(waker));
            if polled.is_ready() || !notice.is_woken.load(Ordering::SeqCst) || began.elapsed() >= self.length {
                return polled;
            }
        }
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The first one since the last poll began has woken the task.
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    /// Polls the future in bursts of this length, and returns the number of polls of the task.
    async fn bursts(length: Duration, future: impl Future<Output = ()>) -> usize {
        let (mut bursts, mut future, mut polls) = (Bursts { length, notice: None }, pin!(future), 0_usize);
        poll_fn(|context| {
            polls = polls.saturating_add(1);
            bursts.poll(future.as_mut(), context)
        })
        .await;
        polls
    }

    fn yields_itself() -> impl Future<Output = ()> {
        let mut left = 10_u32;
        poll_fn(move |context| {
            left = left.saturating_sub(1);
            context.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    #[tokio::test]
    async fn a_future_that_wakes_itself_is_one_poll_of_its_task() {
        assert_eq!(bursts(Duration::MAX, yields_itself()).await, 1);
    }

    #[tokio::test]
    async fn a_future_that_waits_is_polled_when_it_is_woken_and_not_before() {
        let (go, polls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let wakes = Arc::clone(&go);
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            wakes.notify_one();
        });
        let mut notified = pin!(go.notified());
        let of_task = bursts(
            Duration::MAX,
            poll_fn(|context| {
                polls.fetch_add(1, Ordering::Relaxed);
                notified.as_mut().poll(context)
            }),
        );
        assert_eq!((of_task.await, polls.load(Ordering::Relaxed)), (2, 2));
    }

    #[tokio::test]
    async fn a_burst_that_has_lasted_ends_and_goes_on_with_the_next_poll_of_the_task() {
        assert_eq!(bursts(Duration::ZERO, yields_itself()).await, 10);
    }
}
