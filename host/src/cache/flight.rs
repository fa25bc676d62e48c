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

/// The vacancies of one key.
#[derive(Debug, Default)]
struct Slot {
    /// The vacancy that others wait for.
    lead: Option<Lead>,
    /// Those of callers whose wait ran out; nobody waits for them.
    loose: Vec<Holder>,
}

#[derive(Debug)]
struct Holder {
    id: u64,
    owner: Owner,
    fence: Arc<Fence>,
}

#[derive(Debug)]
struct Lead {
    holder: Holder,
    /// The value is on its way to the backend. Who asks from now on must look for himself: the value may be stored and
    /// cleared by another process before this one hears of it.
    filling: bool,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    owner: Owner,
    wake: oneshot::Sender<Wake>,
}

/// Whether a set or clear has overtaken the computation. A fill holds the lock while it stores, so that a clear which
/// finds it storing waits and then removes what it stored.
type Fence = tokio::sync::Mutex<Overtaken>;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Overtaken(bool);

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
    fence: Arc<Fence>,
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
            if slot.is_held_by(owner) {
                return Join::Held;
            }
            if let Some(lead) = &mut slot.lead {
                let (wake, woken) = oneshot::channel();
                lead.waiters.push_back(Waiter { owner, wake });
                return Join::Wait(woken);
            }
        }
        let (holder, vacancy) = self.new_vacancy(&mut table, key, owner);
        let lead = Lead { holder, filling: false, waiters: VecDeque::new() };
        table.keys.entry(key.clone()).or_default().lead = Some(lead);
        self.count(&table);
        Join::Lead { vacancy, stale }
    }

    /// A vacancy for a caller whose wait ran out.
    pub(super) fn loose(self: &Arc<Self>, key: &Key, owner: Owner) -> Vacancy {
        let mut table = self.lock();
        let (holder, vacancy) = self.new_vacancy(&mut table, key, owner);
        table.keys.entry(key.clone()).or_default().loose.push(holder);
        self.count(&table);
        vacancy
    }

    /// Makes the fills of one key's vacancies come too late, before a set or clear of it.
    pub(super) async fn overtake_key(&self, key: &Key) {
        self.overtake(|candidate| candidate == key).await;
    }

    /// Makes the fills of the selected keys' vacancies come too late, before a clear of them.
    pub(super) async fn overtake_selection(&self, selection: &Selection) {
        self.overtake(|candidate| selection.matches(candidate)).await;
    }

    /// A vacancy handed out after this begins needs no overtaking: what it computes from is as new as the clear.
    async fn overtake(&self, is_meant: impl Fn(&Key) -> bool) {
        if self.busy_keys.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut fences = Vec::new();
        {
            let mut table = self.lock();
            for (_, slot) in table.keys.iter_mut().filter(|(key, _)| is_meant(key)) {
                fences.extend(slot.loose.drain(..).map(|holder| holder.fence));
                match slot.lead.take() {
                    // It stays, so that nobody computes anew what is being stored; its end sends all to look again.
                    Some(lead) if lead.filling => {
                        fences.push(Arc::clone(&lead.holder.fence));
                        slot.lead = Some(lead);
                    }
                    Some(lead) => {
                        fences.push(lead.holder.fence);
                        wake_all(lead.waiters, || Wake::LookAgain);
                    }
                    None => {}
                }
            }
            table.keys.retain(|_, slot| !slot.is_empty());
            self.count(&table);
        }
        for fence in fences {
            fence.lock().await.0 = true;
        }
    }

    fn new_vacancy(self: &Arc<Self>, table: &mut Table, key: &Key, owner: Owner) -> (Holder, Vacancy) {
        let id = table.next_id;
        table.next_id = id.wrapping_add(1);
        let fence = Arc::<Fence>::default();
        let holder = Holder { id, owner, fence: Arc::clone(&fence) };
        (holder, Vacancy { flights: Arc::clone(self), key: key.clone(), id, fence, spent: false })
    }

    /// The waiters who asked before the fill began, who may have its value.
    fn begin_fill(&self, vacancy: &Vacancy) -> VecDeque<Waiter> {
        let mut table = self.lock();
        match table.lead_of(vacancy) {
            Some(lead) => {
                lead.filling = true;
                std::mem::take(&mut lead.waiters)
            }
            None => VecDeque::new(),
        }
    }

    /// Takes the vacancy out of the table; those who asked during the fill look for themselves.
    fn end_fill(&self, vacancy: &Vacancy) {
        let mut table = self.lock();
        self.fills.fetch_add(1, Ordering::SeqCst);
        if let Some(lead) = table.remove(vacancy) {
            wake_all(lead.waiters, || Wake::LookAgain);
        }
        self.count(&table);
    }

    /// Passes a dropped vacancy to the first waiter who is still there.
    fn pass_on(self: &Arc<Self>, dropped: &Vacancy) {
        let mut table = self.lock();
        if let Some(Lead { mut waiters, filling, .. }) = table.remove(dropped) {
            if filling {
                // The fill was cut off with its outcome unknown.
                wake_all(waiters, || Wake::LookAgain);
            } else {
                while let Some(Waiter { owner, wake }) = waiters.pop_front() {
                    let (holder, vacancy) = self.new_vacancy(&mut table, &dropped.key, owner);
                    match wake.send(Wake::Vacancy(vacancy)) {
                        Ok(()) => {
                            let lead = Lead { holder, filling: false, waiters };
                            table.keys.entry(dropped.key.clone()).or_default().lead = Some(lead);
                            break;
                        }
                        // This waiter has gone. Its vacancy must not come back here, where the lock is held.
                        Err(Wake::Vacancy(mut refused)) => refused.spent = true,
                        Err(_) => {}
                    }
                }
            }
        }
        self.count(&table);
    }

    fn count(&self, table: &Table) {
        self.busy_keys.store(table.keys.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The lead of the vacancy's key, if it is this vacancy.
    fn lead_of(&mut self, vacancy: &Vacancy) -> Option<&mut Lead> {
        self.keys.get_mut(&vacancy.key)?.lead.as_mut().filter(|lead| lead.holder.id == vacancy.id)
    }

    /// Takes a vacancy out, and answers its lead where it was one.
    fn remove(&mut self, vacancy: &Vacancy) -> Option<Lead> {
        let slot = self.keys.get_mut(&vacancy.key)?;
        slot.loose.retain(|holder| holder.id != vacancy.id);
        let lead = slot.lead.take_if(|lead| lead.holder.id == vacancy.id);
        if slot.is_empty() {
            self.keys.remove(&vacancy.key);
        }
        lead
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.lead.is_none() && self.loose.is_empty()
    }

    fn is_held_by(&self, owner: Owner) -> bool {
        let lead = self.lead.iter().map(|lead| &lead.holder);
        lead.chain(&self.loose).any(|holder| holder.owner == owner)
    }
}

fn wake_all(waiters: VecDeque<Waiter>, with: impl Fn() -> Wake) {
    for waiter in waiters {
        // A waiter who has gone needs no waking.
        let _gone = waiter.wake.send(with());
    }
}

impl Vacancy {
    /// The key to compute.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Stores the computed value by `store`, unless a set or clear came first, and wakes the waiters.
    ///
    /// They receive the value also when the backend is out of reach, since it is as good for them as for its maker.
    pub(super) async fn fill<F>(self, value: Bytes, store: F) -> Result<bool, CacheError>
    where
        F: AsyncFnOnce(Key, Bytes) -> Result<bool, CacheError>,
    {
        let fence = Arc::clone(&self.fence);
        let overtaken = fence.lock().await;
        if overtaken.0 {
            return Ok(false);
        }
        let waiters = self.flights.begin_fill(&self);
        let outcome = store(self.key.clone(), value.clone()).await;
        match &outcome {
            Ok(true) => wake_all(waiters, || Wake::Value(value.clone())),
            Err(error) if error.is_outage() => wake_all(waiters, || Wake::Value(value.clone())),
            Ok(false) | Err(_) => wake_all(waiters, || Wake::LookAgain),
        }
        self.retire();
        outcome
    }

    /// Ends the vacancy with nothing to pass on: the key has a value.
    pub(super) fn retire(mut self) {
        self.spent = true;
        self.flights.end_fill(&self);
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        if !self.spent {
            self.flights.pass_on(self);
        }
    }
}
