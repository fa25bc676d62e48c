//! The client of one connection: any number of concurrent calls queue their commands, and a driver task writes them and
//! hands out the replies in the same order.

// Decision: docs/decisions/0080-our-own-driver-shares-a-connection.md

use std::fmt;
use std::sync::Arc;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::valkey::connection::driver::{Driver, Event};
use crate::valkey::connection::queue::{Queue, Refused, closed, timed_out};

/// A connection that concurrent calls share. Dropping it closes the connection.
pub(in crate::valkey) struct Client {
    queue: Arc<Queue>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Shares a stream on which the client is logged in, and starts the driver. It ends when the client is dropped or
    /// the stream ends.
    pub(in crate::valkey) fn start<S, E>(stream: S, on_event: E) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: FnMut(Event) + Unpin + Send + 'static,
    {
        let queue = Arc::new(Queue::default());
        tokio::spawn(Driver::new(stream, Arc::clone(&queue), on_event));
        Self { queue }
    }

    /// The client for calls with this deadline.
    pub(in crate::valkey) fn until(&self, deadline: Instant) -> Caller<'_> {
        Caller { client: self, deadline: Some(deadline) }
    }

    /// The client for calls without a deadline: the caller has one of its own.
    pub(in crate::valkey) fn unlimited(&self) -> Caller<'_> {
        Caller { client: self, deadline: None }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A client whose calls end at a deadline, with an error for which
/// [`RedisError::is_timeout`](redis::RedisError::is_timeout) is true.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) struct Caller<'a> {
    client: &'a Client,
    deadline: Option<Instant>,
}

impl Caller<'_> {
    /// Sends a command and waits for its reply. An error of the server is a reply.
    pub(in crate::valkey) async fn call(self, command: &Cmd) -> RedisResult<Value> {
        self.send(None, |bytes| command.write_packed_command(bytes)).await
    }

    async fn send(self, pipeline: Option<usize>, write: impl Fn(&mut Vec<u8>)) -> RedisResult<Value> {
        let receiver = match self.client.queue.push(pipeline, self.deadline, &write) {
            Ok(receiver) => receiver,
            // Boxed, to keep the future of a call that does not wait small.
            Err(Refused::Full) => Box::pin(self.push_when_there_is_room(pipeline, &write)).await?,
            Err(Refused::Closed) => return Err(closed()),
        };
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn push_when_there_is_room(
        self,
        pipeline: Option<usize>,
        write: impl Fn(&mut Vec<u8>),
    ) -> RedisResult<oneshot::Receiver<RedisResult<Value>>> {
        let push = async {
            loop {
                let room = self.client.queue.room();
                match self.client.queue.push(pipeline, self.deadline, &write) {
                    Ok(receiver) => return Ok(receiver),
                    Err(Refused::Closed) => return Err(closed()),
                    Err(Refused::Full) => room.await,
                }
            }
        };
        match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, push).await.unwrap_or_else(|_| Err(timed_out())),
            None => push.await,
        }
    }
}

impl ConnectionLike for Caller<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.call(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let (commands, expected) = (pipeline.get_packed_pipeline(), offset.saturating_add(count));
        Box::pin(async move {
            // The server replies nothing, so the reply would be that of another call.
            if expected == 0 {
                return Ok(Vec::new());
            }
            let replies = self.send(Some(expected), |bytes| bytes.extend_from_slice(&commands));
            match replies.await? {
                Value::Array(mut replies) => {
                    replies.drain(..offset.min(replies.len()));
                    Ok(replies)
                }
                other => Ok(vec![other]),
            }
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration as StdDuration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::valkey::connection::queue::MAX_QUEUED;

    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    /// A client, its server, and what happens on its connection.
    fn client(buffer: usize) -> (Client, DuplexStream, mpsc::UnboundedReceiver<&'static str>) {
        let (server, stream) = tokio::io::duplex(buffer);
        let (sender, events) = mpsc::unbounded_channel();
        let client = Client::start(stream, move |event| {
            let name = if matches!(event, Event::Lost) { "lost" } else { "push" };
            let _dropped = sender.send(name);
        });
        (client, server, events)
    }

    async fn expect(server: &mut DuplexStream, commands: &[u8]) {
        let mut read = vec![0; commands.len()];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, commands);
    }

    fn after(milliseconds: u64) -> Instant {
        Instant::now().checked_add(StdDuration::from_millis(milliseconds)).unwrap()
    }

    #[tokio::test]
    async fn concurrent_calls_get_their_replies_in_order_and_a_message_is_none() {
        let (client, mut server, mut events) = client(1 << 16);
        let ping = redis::cmd("PING");
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING").cmd("PING");
        let mut caller = client.unlimited();
        let calls = async {
            tokio::join!(
                client.unlimited().call(&ping),
                pipeline.query_async::<(String, String)>(&mut caller),
                client.unlimited().call(&ping)
            )
        };
        let replies = async {
            expect(&mut server, &PING.repeat(4)).await;
            server.write_all(b"$1\r\na\r\n+b\r\n>2\r\n+invalidate\r\n_\r\n+c\r\n-ERR d\r\n").await.unwrap();
        };
        let ((first, second, third), ()) = tokio::join!(calls, replies);
        assert_eq!(first.unwrap(), Value::BulkString(b"a".to_vec()));
        assert_eq!(second.unwrap(), ("b".to_owned(), "c".to_owned()));
        assert!(third.unwrap().extract_error().is_err());
        assert_eq!(events.recv().await, Some("push"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline_and_its_reply_is_not_that_of_another() {
        let (client, mut server, _events) = client(1 << 16);
        let ping = redis::cmd("PING");
        let start = Instant::now();
        let call = async |milliseconds| {
            let error = client.until(after(milliseconds)).call(&ping).await.unwrap_err();
            assert!(error.is_timeout());
            start.elapsed().as_millis()
        };
        let (later, earlier, last) = tokio::join!(call(500), call(100), call(700));
        assert_eq!((later, earlier, last), (500, 100, 700));
        let next = async {
            expect(&mut server, &PING.repeat(4)).await;
            server.write_all(b"+1\r\n+2\r\n+3\r\n+4\r\n").await.unwrap();
        };
        let (reply, ()) = tokio::join!(client.until(after(100)).call(&ping), next);
        assert_eq!(reply.unwrap(), Value::SimpleString("4".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_wait_for_room_while_the_server_takes_no_commands() {
        let (client, mut server, _events) = client(1 << 10);
        let mut set = redis::cmd("SET");
        set.arg("k").arg(vec![b'v'; 2 * MAX_QUEUED]);
        // The driver has the first, the queue the second.
        let first = client.until(after(10_000)).call(&set);
        let second = async {
            tokio::task::yield_now().await;
            client.until(after(10_000)).call(&set).await
        };
        let waits = async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let error = client.until(after(100)).call(&set).await.unwrap_err();
            assert!(error.is_timeout());
            assert!((MAX_QUEUED..4 * MAX_QUEUED).contains(&client.queue.lock().bytes.len()));
            let next = client.until(after(10_000)).call(&set);
            let serve = async {
                let len = set.get_packed_command().len();
                for _ in 0..3 {
                    server.read_exact(&mut vec![0; len]).await.unwrap();
                    server.write_all(b"+OK\r\n").await.unwrap();
                }
            };
            tokio::join!(next, serve).0
        };
        let (first, second, third) = tokio::join!(first, second, waits);
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (Value::Okay, Value::Okay, Value::Okay));
    }

    #[tokio::test]
    async fn the_end_of_the_stream_ends_all_calls() {
        let (client, mut server, mut events) = client(1 << 16);
        let ping = redis::cmd("PING");
        let close = async {
            expect(&mut server, &PING.repeat(2)).await;
            server.write_all(b"+1\r\n").await.unwrap();
            drop(server);
        };
        let (first, second, ()) = tokio::join!(client.unlimited().call(&ping), client.unlimited().call(&ping), close);
        assert_eq!(first.unwrap(), Value::SimpleString("1".to_owned()));
        assert!(second.unwrap_err().is_unrecoverable_error());
        assert_eq!(events.recv().await, Some("lost"));
        assert!(client.unlimited().call(&ping).await.unwrap_err().is_unrecoverable_error());
    }

    #[tokio::test]
    async fn commands_queued_behind_others_are_written_without_a_reply() {
        let (client, mut server, _events) = client(1 << 10);
        let mut set = redis::cmd("SET");
        set.arg("k").arg(vec![b'v'; 1 << 16]);
        let ping = redis::cmd("PING");
        let calls = async { tokio::join!(client.unlimited().call(&set), client.unlimited().call(&ping)) };
        let serve = async {
            let mut begun = [0; 1];
            server.read_exact(&mut begun).await.unwrap();
            // The socket is full, and another command comes.
            let late = client.queue.push(None, None, |bytes: &mut Vec<u8>| bytes.extend_from_slice(PING));
            let late = late.unwrap_or_else(|_| panic!("there is room"));
            let mut rest = [&set.get_packed_command()[1..], PING, PING].concat();
            let read = tokio::time::timeout(StdDuration::from_secs(10), server.read_exact(&mut rest));
            read.await.expect("all commands are written").unwrap();
            server.write_all(b"+OK\r\n+1\r\n+2\r\n").await.unwrap();
            late.await.unwrap().unwrap()
        };
        let ((first, second), third) = tokio::join!(calls, serve);
        assert_eq!((first.unwrap(), third), (Value::Okay, Value::SimpleString("2".to_owned())));
        assert_eq!(second.unwrap(), Value::SimpleString("1".to_owned()));
    }

    #[tokio::test]
    async fn a_pipeline_without_commands_takes_no_reply() {
        let (client, mut server, _events) = client(1 << 16);
        let mut caller = client.unlimited();
        assert_eq!(caller.req_packed_commands(&Pipeline::new(), 0, 0).await.unwrap(), []);
        let ping = redis::cmd("PING");
        let reply = async {
            expect(&mut server, PING).await;
            server.write_all(b"+1\r\n").await.unwrap();
        };
        let (reply, ()) = tokio::join!(client.unlimited().call(&ping), reply);
        assert_eq!(reply.unwrap(), Value::SimpleString("1".to_owned()));
    }

    #[test]
    fn calls_end_with_the_runtime_of_their_driver() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (of_driver, of_caller) = (runtime(), runtime());
        let (client, _server, _events) = of_driver.block_on(async { client(1 << 16) });
        drop(of_driver);
        let reply = of_caller.block_on(client.unlimited().call(&redis::cmd("PING")));
        assert!(reply.unwrap_err().is_unrecoverable_error());
    }

    #[tokio::test]
    async fn a_reply_without_a_call_closes_the_connection() {
        let (client, mut server, mut events) = client(1 << 16);
        server.write_all(b"+1\r\n").await.unwrap();
        assert_eq!(events.recv().await, Some("lost"));
        assert!(client.unlimited().call(&redis::cmd("PING")).await.is_err());
    }

    #[tokio::test]
    async fn dropping_the_client_closes_the_stream_behind_the_commands() {
        let (client, mut server, _events) = client(1 << 16);
        let ping = redis::cmd("PING");
        tokio::select! {
            biased;
            _reply = client.unlimited().call(&ping) => panic!("the server has not replied"),
            () = std::future::ready(()) => {}
        }
        drop(client);
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, PING);
    }
}
