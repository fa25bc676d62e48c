//! The driver of one connection: the task that writes the commands of all calls, hands out the replies, and ends calls at
//! their deadlines.

// Decision: docs/decisions/0080-our-own-driver-shares-a-connection.md

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use redis::{PushInfo, RedisError, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::valkey::connection::queue::{Queue, QueuedCall, closed, timed_out};
use crate::valkey::connection::replies::{KEPT_BUFFER, Replies};

/// What happens on a connection apart from replies.
pub(in crate::valkey) enum Event {
    /// The server sent a message of its own.
    Push(PushInfo),
    /// The connection is lost. This is the last event.
    Lost,
}

/// The driver of a connection, as a future that ends with it.
pub(in crate::valkey) struct Driver<S, E: FnMut(Event)> {
    stream: S,
    queue: Arc<Queue>,
    on_event: E,
    /// Commands that are being written, and how many of their bytes are.
    outgoing: Vec<u8>,
    written: usize,
    is_flushed: bool,
    replies: Replies,
    /// The calls whose commands were taken from the queue, in their order.
    calls: VecDeque<WaitingCall>,
    deadlines: Deadlines,
    has_ended: bool,
}

/// A call without all of its replies.
struct WaitingCall {
    /// The replies so far of a pipeline, and the number of those that are missing.
    pipeline: Option<(Vec<Value>, usize)>,
    deadline: Option<Instant>,
    /// `None` after the deadline. The replies are then discarded.
    reply: Option<oneshot::Sender<RedisResult<Value>>>,
}

/// A timer for the earliest deadline. Almost all calls have the same timeout, so that a later call seldom changes it.
struct Deadlines {
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to, if it is.
    earliest: Option<Instant>,
}

impl<S, E: FnMut(Event)> Driver<S, E> {
    pub(in crate::valkey) fn new(stream: S, queue: Arc<Queue>, on_event: E) -> Self {
        Self {
            stream,
            queue,
            on_event,
            outgoing: Vec::new(),
            written: 0,
            is_flushed: true,
            replies: Replies::default(),
            calls: VecDeque::new(),
            deadlines: Deadlines { timer: Box::pin(tokio::time::sleep_until(Instant::now())), earliest: None },
            has_ended: false,
        }
    }
}

impl<S, E> Future for Driver<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: FnMut(Event) + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        match driver.advance(cx) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                driver.end(&closed());
                Poll::Ready(())
            }
            Err(error) => {
                driver.end(&error);
                Poll::Ready(())
            }
        }
    }
}

impl<S, E> Driver<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: FnMut(Event) + Unpin,
{
    /// Does what can be done without waiting. Ready after the client was dropped.
    fn advance(&mut self, cx: &mut Context<'_>) -> RedisResult<Poll<()>> {
        loop {
            let is_closed = self.take_commands(cx);
            self.write(cx).map_err(lost)?;
            if is_closed {
                return Ok(Poll::Ready(()));
            }
            // Commands that were queued while others were written have woken this task, and do not again.
            if !self.outgoing.is_empty() || self.queue.lock().bytes.is_empty() {
                break;
            }
        }
        // Reads also while the stream takes no bytes: the server may wait until its replies are read.
        self.read(cx)?;
        self.deadlines.expire(cx, &mut self.calls);
        Ok(Poll::Pending)
    }

    /// Takes the commands of the queue as soon as those before are written. Returns true after the client was dropped.
    fn take_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut commands = self.queue.lock();
        if self.outgoing.is_empty() {
            std::mem::swap(&mut self.outgoing, &mut commands.bytes);
            self.queue.make_room(&mut commands);
        }
        for QueuedCall { pipeline, deadline, reply } in commands.calls.drain(..) {
            self.deadlines.add(deadline);
            let pipeline = pipeline.map(|count| (Vec::with_capacity(count), count));
            self.calls.push_back(WaitingCall { pipeline, deadline, reply: Some(reply) });
        }
        match &mut commands.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        commands.is_closed
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(rest @ [_, ..]) = self.outgoing.get(self.written..) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.written = self.written.saturating_add(len);
                    self.is_flushed = false;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        self.written = 0;
        if self.outgoing.capacity() > KEPT_BUFFER {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.clear();
        }
        if !self.is_flushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.is_flushed = true;
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> RedisResult<()> {
        loop {
            while let Some(reply) = self.replies.next()? {
                self.hand_out(reply)?;
            }
            match self.replies.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => return Err(closed()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Gives a reply to the oldest call.
    fn hand_out(&mut self, reply: Value) -> RedisResult<()> {
        if let Value::Push { kind, data } = reply {
            (self.on_event)(Event::Push(PushInfo { kind, data }));
            return Ok(());
        }
        // Further replies would be taken for those of later calls.
        let Some(call) = self.calls.front_mut() else { return Err(closed()) };
        let reply = match &mut call.pipeline {
            None => reply,
            Some((replies, missing)) => {
                replies.push(reply);
                *missing = missing.saturating_sub(1);
                if *missing > 0 {
                    return Ok(());
                }
                Value::Array(std::mem::take(replies))
            }
        };
        if let Some(WaitingCall { reply: Some(caller), .. }) = self.calls.pop_front() {
            let _dropped = caller.send(Ok(reply));
        }
        Ok(())
    }
}

impl<S, E: FnMut(Event)> Driver<S, E> {
    /// Ends all calls, also those that are still queued.
    fn end(&mut self, error: &RedisError) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let queued = {
            let mut commands = self.queue.lock();
            commands.is_closed = true;
            commands.driver = None;
            commands.bytes = Vec::new();
            self.queue.make_room(&mut commands);
            std::mem::take(&mut commands.calls)
        };
        let waiting = self.calls.drain(..).filter_map(|call| call.reply);
        for call in waiting.chain(queued.into_iter().map(|call| call.reply)) {
            let _dropped = call.send(Err(error.clone()));
        }
        if !std::thread::panicking() {
            (self.on_event)(Event::Lost);
        }
    }
}

impl<S, E: FnMut(Event)> Drop for Driver<S, E> {
    /// If the task ends in another way, such as with its runtime, no call may wait for ever.
    fn drop(&mut self) {
        self.end(&closed());
    }
}

impl Deadlines {
    fn add(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.earliest.is_none_or(|earliest| deadline < earliest) {
            self.earliest = Some(deadline);
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Ends the calls whose deadline has passed.
    fn expire(&mut self, cx: &mut Context<'_>, calls: &mut VecDeque<WaitingCall>) {
        while self.earliest.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.earliest = None;
            let now = Instant::now();
            for call in calls.iter_mut().filter(|call| call.reply.is_some()) {
                match call.deadline {
                    Some(deadline) if deadline <= now => {
                        if let Some(caller) = call.reply.take() {
                            let _dropped = caller.send(Err(timed_out()));
                        }
                    }
                    deadline => self.add(deadline),
                }
            }
        }
    }
}

/// A stream that timed out by itself is lost, unlike a call at its deadline.
fn lost(error: io::Error) -> RedisError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::ConnectionAborted, error).into()
        }
        _ => error.into(),
    }
}
