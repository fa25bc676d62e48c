//! A port that leads to a server, and does to what passes what networks do to it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::io::tcp::socket2::SockRef;

/// What becomes of what passes. What was held back arrives when the fault is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It arrives.
    None,
    /// It arrives so much later.
    Delay(Duration),
    /// So many bytes of it arrive in a second, in each direction of each connection.
    Throttle(usize),
    /// Nothing arrives and nothing is refused, new connections included, as when packets are dropped.
    Silence,
    /// So many bytes of the server's answers arrive on each connection; then it is reset.
    Cut(usize),
}

/// A port on 127.0.0.1 that leads to another one. Lasts until the test's process ends.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    /// The fault is another one, or a connection was reset.
    changed: Condvar,
}

#[derive(Debug)]
struct Line {
    target: u16,
    fault: Fault,
    connections: Vec<Weak<Connection>>,
}

/// A connection belongs to the two threads that pass on what comes, one in each direction: it is closed when both have
/// ended.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
}

/// The ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

impl Relay {
    /// A port that leads to this one.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Line { target, fault: Fault::None, connections: Vec::new() };
        let shared = Arc::new(Shared { line: Mutex::new(line), changed: Condvar::new() });
        let relayed = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = relayed.line().target;
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
                    open(&relayed, client, server);
                }
            }
        });
        Self { port, shared }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections elsewhere. Those that are open stay where they are.
    pub fn lead_to(&self, target: u16) {
        self.shared.line().target = target;
    }

    /// From now on this becomes of what passes.
    pub fn fault(&self, fault: Fault) {
        self.shared.line().fault = fault;
        self.shared.changed.notify_all();
    }

    /// Resets all open connections, as a machine does that has forgotten them.
    pub fn reset(&self) {
        let connections = std::mem::take(&mut self.shared.line().connections);
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| self.shared.reset(&connection));
    }
}

fn open(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let _gone = (client.set_nodelay(true), server.set_nodelay(true));
    let connection = Arc::new(Connection { client, server, is_reset: AtomicBool::new(false) });
    {
        let mut line = shared.line();
        line.connections.retain(|connection| connection.strong_count() > 0);
        line.connections.push(Arc::downgrade(&connection));
    }
    for from in [End::Client, End::Server] {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        std::thread::spawn(move || {
            // A side that is reset, or that nobody reads any more, is so to the other side too.
            if pass(&shared, &connection, from).is_none() {
                shared.reset(&connection);
            }
        });
    }
}

/// Passes on in one direction until that end closes; nothing where the connection broke.
fn pass(shared: &Shared, connection: &Connection, from: End) -> Option<()> {
    let (mut source, mut sink) = match from {
        End::Client => (&connection.client, &connection.server),
        End::Server => (&connection.server, &connection.client),
    };
    let mut chunk = [0; 16 << 10];
    let mut passed = 0;
    loop {
        let len = source.read(&mut chunk).ok()?;
        let mut rest = &chunk[..len];
        loop {
            let arrives = shared.wait(connection, from, passed, rest.len())?;
            sink.write_all(&rest[..arrives]).ok()?;
            passed += arrives;
            rest = &rest[arrives..];
            if rest.is_empty() {
                break;
            }
        }
        if len == 0 {
            return sink.shutdown(Shutdown::Write).ok();
        }
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as the fault wants it, and says how much of what came then arrives; nothing where the connection is reset.
    fn wait(&self, connection: &Connection, from: End, passed: usize, len: usize) -> Option<usize> {
        let mut line = self.line();
        loop {
            if connection.is_reset.load(Ordering::Relaxed) {
                return None;
            }
            let fault = line.fault;
            let (pause, arrives) = match fault {
                Fault::Cut(after) if from == End::Server && len > 0 => {
                    return Some(len.min(after.saturating_sub(passed))).filter(|arrives| *arrives > 0);
                }
                Fault::None | Fault::Cut(_) => return Some(len),
                Fault::Delay(delay) => (delay, len),
                // A tenth of it ten times a second.
                Fault::Throttle(a_second) => (Duration::from_millis(100), len.min((a_second / 10).max(1))),
                Fault::Silence => (Duration::MAX, 0),
            };
            let lasts = |line: &mut Line| line.fault == fault && !connection.is_reset.load(Ordering::Relaxed);
            let waited = self.changed.wait_timeout_while(line, pause, lasts);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Some(arrives);
            }
            line = guard;
        }
    }

    /// Resets a connection: a stream that ends without lingering is reset, not closed. Its two threads, which read from it
    /// or wait with what they have read, let go of it.
    fn reset(&self, connection: &Connection) {
        {
            let _line = self.line();
            connection.is_reset.store(true, Ordering::Relaxed);
        }
        self.changed.notify_all();
        for end in [&connection.client, &connection.server] {
            let _gone = SockRef::from(end).set_linger(Some(Duration::ZERO));
            let _gone = end.shutdown(Shutdown::Read);
        }
    }
}
