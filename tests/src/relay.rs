//! A TCP relay that injects network faults between a client and a server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::io::tcp::socket2::SockRef;

/// A network fault. Data that a fault has held back is delivered when the fault ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault: data is delivered immediately.
    None,
    /// Data is delivered after this delay.
    Delay(Duration),
    /// At most this many bytes per second are delivered in each direction of a connection.
    Throttle(usize),
    /// No data is delivered and no connection is refused, as when a firewall drops all packets.
    Blackhole,
    /// Each connection is reset after this many bytes from the server.
    ResetAfter(usize),
    /// No data from this side is delivered, and all data from the other side.
    Mute(Side),
    /// Data from the server is delivered up to the next occurrence of these bytes within one read, and none from there on.
    MuteFrom(&'static [u8]),
}

/// A port on 127.0.0.1 that relays to another port. It stays open until the test process ends.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    link: Arc<Link>,
}

/// The state that all connections of a relay share.
#[derive(Debug)]
struct Link {
    state: Mutex<State>,
    /// Notified when the fault changes or a connection is reset.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    target: u16,
    fault: Fault,
    /// The number of the only connection that has the fault; `None` if all have it.
    only: Option<u64>,
    connections: Vec<Weak<Connection>>,
    /// The number of the next connection.
    next: u64,
}

impl State {
    fn fault_of(&self, connection: &Connection) -> Fault {
        if self.only.is_none_or(|number| number == connection.number) { self.fault } else { Fault::None }
    }

    fn open(&self) -> impl Iterator<Item = Arc<Connection>> {
        self.connections.iter().filter_map(Weak::upgrade)
    }
}

/// A relayed connection. The two threads that forward its data own it, one for each direction; it is closed when both
/// end.
#[derive(Debug)]
struct Connection {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
}

/// The two sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that opened the connection.
    Client,
    /// The target of the relay.
    Server,
}

impl Relay {
    /// Opens a port that relays to this one.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { target, fault: Fault::None, only: None, connections: Vec::new(), next: 0 };
        let link = Arc::new(Link { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&link);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = accepting.state().target;
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
                    open(&accepting, client, server);
                }
            }
        });
        Self { port, link }
    }

    /// The relay's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the target of new connections. Open connections keep their target.
    pub fn set_target(&self, target: u16) {
        self.link.state().target = target;
    }

    /// Replaces the fault, for all connections.
    pub fn set_fault(&self, fault: Fault) {
        self.replace_fault(fault, |_| None);
    }

    /// Replaces the fault, for one connection only: number `nth` of the open ones, or the next one if there is none. The
    /// numbers begin anew after the last.
    pub fn set_fault_of_one(&self, fault: Fault, nth: usize) {
        self.replace_fault(fault, |state| {
            let open: Vec<u64> = state.open().map(|connection| connection.number).collect();
            Some(nth.checked_rem(open.len()).map_or(state.next, |nth| open[nth]))
        });
    }

    fn replace_fault(&self, fault: Fault, only: impl Fn(&State) -> Option<u64>) {
        {
            let mut state = self.link.state();
            state.only = only(&state);
            state.fault = fault;
        }
        self.link.changed.notify_all();
    }

    /// Resets all open connections, as a server does after a crash.
    pub fn reset(&self) {
        let connections = std::mem::take(&mut self.link.state().connections);
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| self.link.reset(&connection));
    }
}

fn open(link: &Arc<Link>, client: TcpStream, server: TcpStream) {
    let _already_closed = (client.set_nodelay(true), server.set_nodelay(true));
    let connection = {
        let mut state = link.state();
        let connection = Arc::new(Connection { number: state.next, client, server, is_reset: AtomicBool::new(false) });
        state.next += 1;
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(&connection));
        connection
    };
    for from in [Side::Client, Side::Server] {
        let (link, connection) = (Arc::clone(link), Arc::clone(&connection));
        std::thread::spawn(move || {
            // An error on one side resets the other side too.
            if forward(&link, &connection, from).is_none() {
                link.reset(&connection);
            }
        });
    }
}

/// Forwards data in one direction until that side closes its stream. Returns `None` if the connection breaks.
fn forward(link: &Link, connection: &Connection, from: Side) -> Option<()> {
    let (mut source, mut sink) = match from {
        Side::Client => (&connection.client, &connection.server),
        Side::Server => (&connection.server, &connection.client),
    };
    let mut chunk = [0; 16 << 10];
    let mut forwarded = 0;
    loop {
        let len = source.read(&mut chunk).ok()?;
        let mut rest = &chunk[..len];
        loop {
            let count = link.wait(connection, from, forwarded, rest)?;
            sink.write_all(&rest[..count]).ok()?;
            forwarded += count;
            rest = &rest[count..];
            if rest.is_empty() {
                break;
            }
        }
        if len == 0 {
            return sink.shutdown(Shutdown::Write).ok();
        }
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as the fault delays the next bytes, and returns how many of them to deliver. Returns `None` if the
    /// connection is reset. `forwarded` is the number of bytes already delivered in this direction.
    fn wait(&self, connection: &Connection, from: Side, forwarded: usize, next: &[u8]) -> Option<usize> {
        let len = next.len();
        let mut state = self.state();
        loop {
            if connection.is_reset.load(Ordering::Relaxed) {
                return None;
            }
            let fault = state.fault_of(connection);
            let (delay, count) = match fault {
                Fault::ResetAfter(limit) if from == Side::Server && len > 0 => {
                    return Some(len.min(limit.saturating_sub(forwarded))).filter(|count| *count > 0);
                }
                Fault::None | Fault::ResetAfter(_) => return Some(len),
                Fault::Delay(delay) => (delay, len),
                // Ten times a second, a tenth of the bytes of a second.
                Fault::Throttle(per_second) => (Duration::from_millis(100), len.min((per_second / 10).max(1))),
                Fault::Blackhole => (Duration::MAX, 0),
                Fault::Mute(side) if side == from => (Duration::MAX, 0),
                Fault::MuteFrom(bytes) if from == Side::Server => {
                    match next.windows(bytes.len()).position(|window| window == bytes) {
                        Some(0) => (Duration::MAX, 0),
                        found => return Some(found.unwrap_or(len)),
                    }
                }
                Fault::Mute(_) | Fault::MuteFrom(_) => return Some(len),
            };
            let is_unchanged =
                |state: &mut State| state.fault_of(connection) == fault && !connection.is_reset.load(Ordering::Relaxed);
            let waited = self.changed.wait_timeout_while(state, delay, is_unchanged);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Some(count);
            }
            state = guard;
        }
    }

    /// Resets a connection: with a linger time of zero, closing the socket sends RST. Shutting down the read side ends
    /// the two threads, which then drop the sockets.
    fn reset(&self, connection: &Connection) {
        {
            let _state = self.state();
            connection.is_reset.store(true, Ordering::Relaxed);
        }
        self.changed.notify_all();
        for end in [&connection.client, &connection.server] {
            let _already_closed = SockRef::from(end).set_linger(Some(Duration::ZERO));
            let _already_closed = end.shutdown(Shutdown::Read);
        }
    }
}
