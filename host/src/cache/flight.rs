//! One computation per key: who holds a vacancy, who waits for it, and what makes its fill come too late.
//!
//! This is the part of get-or-set that a process settles by itself. What other processes do reaches it through the
//! backend, which fills a vacancy only where the key is without a value.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::cache::{CacheError, Key, Selection};

/// Who asks: one plugin instance. An instance that asks for a key whose vacancy it holds would wait for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(u64);

impl Owner {
    /// A new owner, different from all others of this process.
    #[expect(clippy::new_without_default, reason = "two owners are never equal, which a default suggests")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The vacancies of one cache.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// A std mutex: nothing awaits while it is held.
    table: Mutex<Table>,
    /// How many keys the table holds, so that a set or clear with no vacancy about takes no lock.
    busy_keys: AtomicUsize,
    /// How many fills have ended; tells whether a look-up that missed may be out of date. Changes under the lock only.
    fills: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    keys: HashMap<Key, Slot>,
    next_id: u64,
}

/// The vacancies of one key, and who waits.
#[derive(Debug, Default)]
struct Slot {
    /// All who may fill: the lead, and callers whose wait ran out. A set or clear takes them out, and so makes their
    /// fills come too late.
    holders: Vec<Holder>,
    /// The one whom others wait for, by his vacancy's id.
    lead: Option<u64>,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Holder {
    id: u64,
    owner: Owner,
    /// The value is on its way to the backend. A set or clear does not take this holder out but waits for `storing`,
    /// and then removes what was stored.
    is_filling: bool,
    storing: Storing,
}

#[derive(Debug)]
struct Waiter {
    owner: Owner,
    wake: oneshot::Sender<Wake>,
}

/// Locked while a vacancy's value is being stored.
type Storing = Arc<tokio::sync::Mutex<()>>;

/// What a waiter is woken with.
#[derive(Debug)]
pub(super) enum Wake {
    /// The computed value.
    Value(Bytes),
    /// The holder gave up; the waiter computes.
    Vacancy(Vacancy),
    /// The key was set or cleared meanwhile: look again.
    LookAgain,
}

/// What [`Flights::join`] answers.
#[derive(Debug)]
pub(super) enum Join {
    /// Nobody computes the key yet: the caller does. `stale` when a fill ended since the caller's look-up.
    Lead { vacancy: Vacancy, stale: bool },
    /// Somebody does: wait.
    Wait(oneshot::Receiver<Wake>),
    /// The caller itself does.
    Held,
}

/// A moment before a look-up, to be given to [`Flights::join`] after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(u64);

/// The right to compute the value of one key. Dropping it passes it to exactly one waiter.
#[derive(Debug)]
pub struct Vacancy {
    flights: Arc<Flights>,
    key: Key,
    id: u64,
    storing: Storing,
    /// Nothing is left to pass on.
    spent: bool,
}

impl Flights {
    pub(super) fn now(&self) -> Moment {
        Moment(self.fills.load(Ordering::SeqCst))
    }

    /// Enters the key's flight after a look-up that began at `since` found no value.
    pub(super) fn join(self: &Arc<Self>, key: &Key, owner: Owner, since: Moment) -> Join {
        let mut table = self.lock();
        let stale = self.fills.load(Ordering::SeqCst) != since.0;
        if let Some(slot) = table.keys.get_mut(key) {
            if slot.holders.iter().any(|holder| holder.owner == owner) {
                return Join::Held;
            }
            if slot.lead.is_some() {
                let (wake, woken) = oneshot::channel();
                slot.waiters.push_back(Waiter { owner, wake });
                return Join::Wait(woken);
            }
        }
        let vacancy = self.hand_out(&mut table, key, owner);
        table.keys.entry(key.clone()).or_default().lead = Some(vacancy.id);
        Join::Lead { vacancy, stale }
    }

    /// A vacancy for a caller whose wait ran out.
    pub(super) fn loose(self: &Arc<Self>, key: &Key, owner: Owner) -> Vacancy {
        self.hand_out(&mut self.lock(), key, owner)
    }

    /// Makes the fills of these keys' vacancies come too late, before a set or clear of them.
    pub(super) async fn overtake_keys<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        // A vacancy handed out after this looked needs no overtaking: what it computes from is as new as the clear.
        if self.is_idle() {
            return;
        }
        let mut storing = Vec::new();
        {
            let mut table = self.lock();
            for key in keys {
                if let Some(slot) = table.keys.get_mut(key) {
                    storing.extend(slot.overtake());
                    self.tidy(&mut table, key);
                }
            }
        }
        wait_for_all(storing).await;
    }

    /// Makes the fills of the selected keys' vacancies come too late, before a clear of them.
    pub(super) async fn overtake_selection(&self, selection: &Selection) {
        if self.is_idle() {
            return;
        }
        let storing: Vec<_> = {
            let mut table = self.lock();
            let selected = table.keys.iter_mut().filter(|(key, _)| selection.matches(key));
            let storing = selected.flat_map(|(_, slot)| slot.overtake()).collect();
            table.keys.retain(|_, slot| !slot.holders.is_empty());
            self.count(&table);
            storing
        };
        wait_for_all(storing).await;
    }

    fn is_idle(&self) -> bool {
        self.busy_keys.load(Ordering::SeqCst) == 0
    }

    /// A new vacancy, with its holder in the table.
    fn hand_out(self: &Arc<Self>, table: &mut Table, key: &Key, owner: Owner) -> Vacancy {
        let id = table.next_id;
        table.next_id = id.wrapping_add(1);
        let storing = Storing::default();
        let holder = Holder { id, owner, is_filling: false, storing: Arc::clone(&storing) };
        table.keys.entry(key.clone()).or_default().holders.push(holder);
        self.count(table);
        Vacancy { flights: Arc::clone(self), key: key.clone(), id, storing, spent: false }
    }

    /// The waiters who asked before the fill began, who may have its value; none where a set or clear came first.
    fn begin_fill(&self, vacancy: &Vacancy) -> Option<VecDeque<Waiter>> {
        let mut table = self.lock();
        let slot = table.keys.get_mut(&vacancy.key)?;
        slot.holders.iter_mut().find(|holder| holder.id == vacancy.id)?.is_filling = true;
        Some(std::mem::take(&mut slot.waiters))
    }

    /// Takes the vacancy out of the table. Who asked during the fill looks for himself: between the backend's storing
    /// the value and our hearing of it another process may have cleared it.
    fn end_fill(&self, vacancy: &Vacancy) {
        let mut table = self.lock();
        self.fills.fetch_add(1, Ordering::SeqCst);
        if let Some(slot) = table.keys.get_mut(&vacancy.key) {
            slot.remove(vacancy.id);
            wake_all(std::mem::take(&mut slot.waiters), || Wake::LookAgain);
        }
        self.tidy(&mut table, &vacancy.key);
    }

    /// Passes a dropped vacancy to the first waiter who is still there.
    fn pass_on(self: &Arc<Self>, dropped: &Vacancy) {
        let mut table = self.lock();
        let Some(slot) = table.keys.get_mut(&dropped.key) else { return };
        let is_lead = slot.lead == Some(dropped.id);
        let mut waiters = if is_lead { std::mem::take(&mut slot.waiters) } else { VecDeque::new() };
        if slot.remove(dropped.id).is_some_and(|holder| holder.is_filling) {
            // The fill was cut off, and its outcome is not known.
            self.fills.fetch_add(1, Ordering::SeqCst);
            wake_all(std::mem::take(&mut waiters), || Wake::LookAgain);
        }
        while let Some(Waiter { owner, wake }) = waiters.pop_front() {
            let vacancy = self.hand_out(&mut table, &dropped.key, owner);
            let id = vacancy.id;
            let slot = table.keys.entry(dropped.key.clone()).or_default();
            match wake.send(Wake::Vacancy(vacancy)) {
                Ok(()) => {
                    slot.lead = Some(id);
                    slot.waiters = waiters;
                    break;
                }
                // This waiter has gone. His vacancy must not come back here, where the lock is held.
                Err(refused) => {
                    slot.remove(id);
                    if let Wake::Vacancy(mut vacancy) = refused {
                        vacancy.spent = true;
                    }
                }
            }
        }
        self.tidy(&mut table, &dropped.key);
    }

    /// Forgets a key without vacancies.
    fn tidy(&self, table: &mut Table, key: &Key) {
        if table.keys.get(key).is_some_and(|slot| slot.holders.is_empty()) {
            table.keys.remove(key);
        }
        self.count(table);
    }

    fn count(&self, table: &Table) {
        self.busy_keys.store(table.keys.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn remove(&mut self, id: u64) -> Option<Holder> {
        self.lead.take_if(|lead| *lead == id);
        let at = self.holders.iter().position(|holder| holder.id == id)?;
        Some(self.holders.swap_remove(at))
    }

    /// Takes out all holders but those who are storing, and gives what to wait for until these are done.
    fn overtake(&mut self) -> Vec<Storing> {
        self.holders.retain(|holder| holder.is_filling);
        let is_there = |id: u64| self.holders.iter().any(|holder| holder.id == id);
        // A lead who is storing stays, so that nobody computes anew what is about to be there.
        if !self.lead.is_some_and(is_there) {
            self.lead = None;
            wake_all(std::mem::take(&mut self.waiters), || Wake::LookAgain);
        }
        self.holders.iter().map(|holder| Arc::clone(&holder.storing)).collect()
    }
}

async fn wait_for_all(storing: Vec<Storing>) {
    for storing in storing {
        let _done = storing.lock().await;
    }
}

fn wake_all(waiters: VecDeque<Waiter>, with: impl Fn() -> Wake) {
    for waiter in waiters {
        // A waiter who has gone needs no waking.
        let _gone = waiter.wake.send(with());
    }
}

impl Vacancy {
    /// Whether it was handed out by these flights.
    pub(super) fn belongs_to(&self, flights: &Arc<Flights>) -> bool {
        Arc::ptr_eq(&self.flights, flights)
    }

    /// Stores the computed value by `store`, unless a set or clear came first, and wakes the waiters.
    ///
    /// They receive the value also when the backend is out of reach, since it is as good for them as for its maker.
    pub(super) async fn fill<F>(mut self, value: Bytes, store: F) -> Result<bool, CacheError>
    where
        F: AsyncFnOnce(Key, Bytes) -> Result<bool, CacheError>,
    {
        let storing = Arc::clone(&self.storing);
        let _storing = storing.lock().await;
        let Some(waiters) = self.flights.begin_fill(&self) else { return Ok(false) };
        let outcome = store(self.key.clone(), value.clone()).await;
        match &outcome {
            Ok(true) => wake_all(waiters, || Wake::Value(value.clone())),
            Err(error) if error.is_outage() => wake_all(waiters, || Wake::Value(value.clone())),
            Ok(false) | Err(_) => wake_all(waiters, || Wake::LookAgain),
        }
        self.end();
        outcome
    }

    /// Ends a vacancy with nothing to pass on: the key has a value.
    pub(super) fn retire(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.spent = true;
        self.flights.end_fill(self);
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        if !self.spent {
            self.flights.pass_on(self);
        }
    }
}
