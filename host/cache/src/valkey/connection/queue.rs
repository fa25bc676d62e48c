//! The queue of one connection: the commands of its calls until the driver takes them.

// Decision: docs/decisions/0080-our-own-driver-shares-a-connection.md

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use redis::{RedisError, RedisResult, Value};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// The number of bytes of queued commands that the driver has not taken. While there are more, further calls wait. One
/// command of any size is always accepted, as its caller holds it in memory anyway.
pub(in crate::valkey) const MAX_QUEUED: usize = 256 << 10;

/// The commands that the driver has not taken yet, and their calls.
#[derive(Default)]
pub(in crate::valkey) struct Queue {
    commands: Mutex<Commands>,
    /// Notified when there is room for further commands.
    room: Notify,
}

/// The content of a queue.
#[derive(Default)]
pub(in crate::valkey) struct Commands {
    /// The commands, as they are sent.
    pub(in crate::valkey) bytes: Vec<u8>,
    /// The calls of the commands, in their order.
    pub(in crate::valkey) calls: Vec<QueuedCall>,
    /// Wakes the driver. `None` if it was woken already.
    pub(in crate::valkey) driver: Option<Waker>,
    /// True after either end is gone.
    pub(in crate::valkey) is_closed: bool,
    /// True if calls wait for room.
    is_awaited: bool,
}

/// A call that waits for its replies.
pub(in crate::valkey) struct QueuedCall {
    /// The number of replies, if the call is a pipeline, whose replies make up an array.
    pub(in crate::valkey) pipeline: Option<usize>,
    /// When the driver ends the call without a reply.
    pub(in crate::valkey) deadline: Option<Instant>,
    pub(in crate::valkey) reply: oneshot::Sender<RedisResult<Value>>,
}

/// Why commands were not queued.
pub(in crate::valkey) enum Refused {
    /// The driver must take others first.
    Full,
    /// The connection is closed.
    Closed,
}

impl Queue {
    pub(in crate::valkey) fn lock(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the calls continue that wait for room.
    pub(in crate::valkey) fn make_room(&self, commands: &mut Commands) {
        if std::mem::take(&mut commands.is_awaited) {
            self.room.notify_waiters();
        }
    }

    /// Completes when there may be room. Created before a [`Queue::push`] that is refused, it misses nothing.
    pub(in crate::valkey) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Closes the queue, and wakes the driver.
    pub(in crate::valkey) fn close(&self) {
        let driver = {
            let mut commands = self.lock();
            commands.is_closed = true;
            commands.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Queues commands that `write` appends.
    ///
    /// # Errors
    ///
    /// The queue is full or closed.
    pub(in crate::valkey) fn push(
        &self,
        pipeline: Option<usize>,
        deadline: Option<Instant>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<oneshot::Receiver<RedisResult<Value>>, Refused> {
        let (reply, receiver) = oneshot::channel();
        let driver = {
            let mut commands = self.lock();
            if commands.is_closed {
                return Err(Refused::Closed);
            }
            if commands.bytes.len() > MAX_QUEUED {
                commands.is_awaited = true;
                return Err(Refused::Full);
            }
            write(&mut commands.bytes);
            commands.calls.push(QueuedCall { pipeline, deadline, reply });
            commands.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(receiver)
    }
}

/// The error of a call whose connection ended before its reply.
pub(in crate::valkey) fn closed() -> RedisError {
    io::Error::from(io::ErrorKind::BrokenPipe).into()
}

/// The error of a call whose deadline came before its reply.
pub(in crate::valkey) fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}
