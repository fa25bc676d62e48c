//! The streams of an HTTP/2 connection. hyper polls no body while the client takes nothing of it, so the owner of a
//! stream's task must break it off.

use std::sync::Arc;

use hyper::rt::Executor;

use super::ConnectionState;

/// Spawns the streams of one connection, and keeps a handle of each beside its answer.
#[derive(Debug, Clone)]
pub(super) struct StreamExecutor {
    connection: Arc<ConnectionState>,
}

impl StreamExecutor {
    pub(super) fn new(connection: Arc<ConnectionState>) -> Self {
        Self { connection }
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let task = tokio::spawn(stream);
        let mut streams = self.connection.lock_streams();
        // hyper calls the service and then spawns the stream of its future.
        let Some(answer) = streams.next.take() else { return };
        if streams.open.len() == streams.open.capacity() {
            streams.open.retain(|(answer, _)| answer.strong_count() > 0);
        }
        streams.open.push((Arc::downgrade(&answer), task.abort_handle()));
    }
}
