//! Blocking operations on the threads that the runtime keeps for them, a limited number at a time.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs the blocking operations of one owner. An operation that hangs cannot be interrupted and keeps its permit, so
/// that operations that hang do not use up the threads that all owners share.
#[derive(Debug, Clone)]
pub(crate) struct BlockingCalls(Arc<Semaphore>);

impl BlockingCalls {
    /// Allows `max` operations at a time. Further ones wait.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max)))
    }

    /// Runs an operation. It continues if this future is dropped.
    ///
    /// # Errors
    ///
    /// If the operation panicked, or the runtime shuts down.
    pub(crate) async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let running = tokio::task::spawn_blocking(move || {
            let _permit_until_the_call_ends = permit;
            call()
        });
        running.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn hang(until: Receiver<()>) -> impl FnOnce() + Send {
        move || {
            let _released = until.recv();
        }
    }

    #[tokio::test]
    async fn an_operation_that_hangs_keeps_its_permit_and_others_go_on() {
        let calls = BlockingCalls::new(2);
        let (release, until) = channel();
        let abandoned = tokio::spawn({
            let calls = calls.clone();
            async move { calls.run(hang(until)).await }
        });
        while calls.0.available_permits() == 2 {
            tokio::task::yield_now().await;
        }
        abandoned.abort();
        assert!(abandoned.await.unwrap_err().is_cancelled());
        assert_eq!(calls.run(|| 1).await.unwrap(), 1);
        assert_eq!(calls.0.available_permits(), 1);
        release.send(()).unwrap();
        // The permit comes back.
        drop(calls.0.acquire_many(2).await.unwrap());
    }
}
