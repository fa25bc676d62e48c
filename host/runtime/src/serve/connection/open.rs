//! The open connections: how many there may be, which one makes room for another, and their shutdown.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{CloseReason, ConnectionState, Wish};
use crate::metrics::{CONNECTIONS, SLOW_UPLOADS, UNTAKEN_ANSWERS};

/// How long a new connection waits for the room of an idle one. An idle connection needs one turn of its task.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// The shortest time between two looks for answers that are not taken.
const GIVE_UP_INTERVAL: Duration = Duration::from_millis(500);

/// How many idle connections one look at all of them finds.
const MAX_CANDIDATES: usize = 64;

/// All open connections of a server.
#[derive(Debug)]
pub(in crate::serve) struct OpenConnections {
    max: usize,
    /// All connections count their times from here.
    epoch: Instant,
    table: Mutex<Table>,
    /// Notified when a connection is closed, or does not make room.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    open: HashMap<u64, Arc<ConnectionState>>,
    /// Connections that were idle when all were looked at, with the time since when; the oldest first.
    candidates: VecDeque<(u64, u64)>,
    /// The connection that was told to make room.
    leaving: Option<u64>,
    /// When untaken answers were last given up.
    given_up: Option<Instant>,
}

/// A connection in the table. Dropping it makes room for another.
#[derive(Debug)]
pub(in crate::serve) struct OpenConnection {
    id: u64,
    state: Arc<ConnectionState>,
    connections: Arc<OpenConnections>,
}

impl OpenConnections {
    pub(in crate::serve) fn new(max: usize) -> Arc<Self> {
        // All series exist from the start, so that their first increase is one.
        gauge!(CONNECTIONS.name).set(0.0);
        counter!(UNTAKEN_ANSWERS.name).increment(0);
        counter!(SLOW_UPLOADS.name).increment(0);
        CloseReason::ALL.iter().for_each(|reason| reason.count(0));
        Arc::new(Self { max, epoch: Instant::now(), table: Mutex::default(), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. At the maximum the connection that has been idle for longest is closed for it. Returns `None`
    /// if none is idle: then the new one must be closed.
    pub(in crate::serve) async fn open(self: &Arc<Self>) -> Option<OpenConnection> {
        let deadline = Instant::now().checked_add(ROOM_TIMEOUT)?;
        loop {
            // Before the look, so that no change is missed.
            let changed = self.changed.notified();
            {
                let mut table = self.lock();
                if table.open.len() < self.max {
                    return Some(self.insert(&mut table));
                }
                if !table.close_oldest_idle() {
                    CloseReason::NoRoom.count(1);
                    return None;
                }
            }
            if timeout_at(deadline, changed).await.is_err() {
                CloseReason::NoRoom.count(1);
                return None;
            }
        }
    }

    fn insert(self: &Arc<Self>, table: &mut Table) -> OpenConnection {
        let id = table.next_id;
        table.next_id = id.wrapping_add(1);
        let state = Arc::new(ConnectionState::new(self.epoch));
        table.open.insert(id, Arc::clone(&state));
        gauge!(CONNECTIONS.name).increment(1.0);
        OpenConnection { id, state, connections: Arc::clone(self) }
    }

    /// Closes the connection that has been idle for longest, if any is idle, and waits until it is closed, at most for
    /// `pause`. Call it when the process has no descriptor left.
    pub(in crate::serve) async fn make_room(&self, pause: Duration) {
        let changed = self.changed.notified();
        self.lock().close_oldest_idle();
        let _elapsed = tokio::time::timeout(pause, changed).await;
    }

    /// Gives up the answers of which their clients have taken nothing for this long. Call it when a new request finds no
    /// place. Does nothing if it was called shortly before.
    pub(in crate::serve) fn give_up_untaken(&self, limit: Duration) {
        let busy: Vec<_> = {
            let mut table = self.lock();
            if table.given_up.is_some_and(|last| last.elapsed() < GIVE_UP_INTERVAL) {
                return;
            }
            table.given_up = Some(Instant::now());
            table.open.values().filter(|connection| !connection.is_idle()).cloned().collect()
        };
        busy.iter().for_each(|connection| connection.give_up_untaken(limit));
    }

    /// Lets all connections finish their requests and close.
    pub(in crate::serve) fn shut_down(&self) {
        for connection in self.lock().open.values() {
            connection.wish(Wish::ShutDown);
        }
    }

    /// Waits until no connection is open.
    pub(in crate::serve) async fn until_closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().open.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

impl Table {
    /// Tells the connection that has been idle for longest to close. False if none is idle.
    fn close_oldest_idle(&mut self) -> bool {
        if self.leaving.is_some_and(|id| self.open.contains_key(&id)) {
            return true;
        }
        if self.close_candidate() {
            return true;
        }
        self.find_candidates();
        self.close_candidate()
    }

    /// Tells the first candidate that is still idle to close. False if there is none.
    fn close_candidate(&mut self) -> bool {
        while let Some((idle_since, id)) = self.candidates.pop_front() {
            let Some(connection) = self.open.get(&id) else { continue };
            if connection.is_idle() && connection.idle_since() == idle_since {
                self.leaving = Some(id);
                connection.wish(Wish::MakeRoom);
                return true;
            }
        }
        false
    }

    /// Looks at all connections. Called once for many that are closed, because it takes time.
    fn find_candidates(&mut self) {
        let mut idle: Vec<_> = self
            .open
            .iter()
            .filter(|(_, connection)| connection.is_idle())
            .map(|(id, connection)| (connection.idle_since(), *id))
            .collect();
        idle.sort_unstable();
        idle.truncate(MAX_CANDIDATES);
        self.candidates = idle.into();
    }
}

impl OpenConnection {
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }

    /// Says that the connection does not make room: a request has arrived meanwhile.
    pub(super) fn stays(&self) {
        self.connections.lock().leaving = None;
        self.connections.changed.notify_waiters();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
        gauge!(CONNECTIONS.name).decrement(1.0);
        self.connections.changed.notify_waiters();
    }
}
