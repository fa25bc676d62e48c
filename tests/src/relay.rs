//! A port that leads to a server, and does to what passes what networks do to it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::io::tcp::socket2::SockRef;

/// What becomes of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It arrives.
    None,
    /// It arrives so much later.
    Delay(Duration),
    /// So many bytes of it arrive in a second, in each direction of each connection.
    Throttle(usize),
    /// Nothing arrives and nothing is refused, new connections included, as when packets are dropped. It arrives when
    /// the fault is over.
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
    /// The fault is another one, or connections were reset.
    changed: Condvar,
}

#[derive(Debug)]
struct Line {
    target: u16,
    fault: Fault,
    /// Both ends of each connection that is open.
    connections: Vec<[TcpStream; 2]>,
    /// How often all connections were reset.
    resets: u64,
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// A port that leads to this one.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Line { target, fault: Fault::None, connections: Vec::new(), resets: 0 };
        let shared = Arc::new(Shared { line: Mutex::new(line), changed: Condvar::new() });
        let relayed = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = relayed.line().target;
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
                    open(&relayed, &client, &server);
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
        let connections = {
            let mut line = self.shared.line();
            line.resets += 1;
            std::mem::take(&mut line.connections)
        };
        self.shared.changed.notify_all();
        connections.into_iter().for_each(|ends| reset(&ends));
    }
}

/// A stream that ends without lingering is reset, not closed. Whoever reads from it lets go of it.
fn reset(ends: &[TcpStream; 2]) {
    for end in ends {
        let _gone = SockRef::from(end).set_linger(Some(Duration::ZERO));
        let _gone = end.shutdown(Shutdown::Read);
    }
}

fn open(shared: &Arc<Shared>, client: &TcpStream, server: &TcpStream) {
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    let _gone = (client.set_nodelay(true), server.set_nodelay(true));
    let resets = {
        let mut line = shared.line();
        line.connections.push([clone(client), clone(server)]);
        line.resets
    };
    for (from, to, is_answer) in [(client, server, false), (server, client, true)] {
        let (shared, from, to) = (Arc::clone(shared), clone(from), clone(to));
        std::thread::spawn(move || pass(&shared, from, to, is_answer, resets));
    }
}

/// Passes on in one direction, until either end closes.
fn pass(shared: &Shared, mut from: TcpStream, mut to: TcpStream, is_answer: bool, resets: u64) {
    let mut chunk = [0; 16 << 10];
    let mut passed = 0;
    while let Ok(len) = from.read(&mut chunk) {
        let fault = {
            let is_held = |line: &mut Line| line.fault == Fault::Silence && line.resets == resets;
            let line = shared.changed.wait_while(shared.line(), is_held).unwrap_or_else(PoisonError::into_inner);
            if line.resets != resets {
                return;
            }
            line.fault
        };
        if len == 0 {
            let _closed = to.shutdown(Shutdown::Write);
            return;
        }
        let whole = &chunk[..len];
        let arrives = match fault {
            Fault::Cut(after) if is_answer && passed + len > after => &whole[..after.saturating_sub(passed)],
            _ => whole,
        };
        let written = match fault {
            Fault::Delay(delay) => {
                std::thread::sleep(delay);
                to.write_all(arrives)
            }
            // A tenth of it ten times a second.
            Fault::Throttle(a_second) => arrives.chunks((a_second / 10).max(1)).try_for_each(|piece| {
                std::thread::sleep(Duration::from_millis(100));
                to.write_all(piece)
            }),
            _ => to.write_all(arrives),
        };
        passed += len;
        if written.is_err() || arrives.len() < len {
            reset(&[from, to]);
            return;
        }
    }
}
