//! The in-flight table: which keys are being computed in this process, and which callers wait for them (single-flight).
//!
//! The table never decides which value is stored; the lease in the backend decides that. It lets callers that miss the
//! same key share one wait, and wakes them with the value or to claim again.

// Decision: docs/decisions/0003-the-in-flight-table-wakes-waiters-and-decides-nothing.md

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::answer_limit::AnswerLimit;
use crate::get_or_set::lease::Lease;
use crate::key::{Key, Selection};

/// The identity of a caller: one plugin instance. An instance that asks for a key whose vacancy it holds would wait for
/// itself, so that call is refused.
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

/// The in-flight table of one cache: a slot for each key that a caller of this process computes or waits for.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// A std mutex: nothing awaits while it is locked.
    table: Mutex<HashMap<Key, Slot>>,
    /// The number of slots. While it is zero, a set or clear takes no lock.
    slot_count: AtomicUsize,
    /// Orders the callers that enter the table and the writes.
    next: AtomicU64,
    /// The sequence number of the last set or clear.
    last_write: AtomicU64,
}

impl Default for InFlight {
    fn default() -> Self {
        let (next, last_write) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { table: Mutex::default(), slot_count: AtomicUsize::new(0), next, last_write }
    }
}

#[derive(Debug, Default)]
struct Slot {
    leader: Option<Leader>,
    /// All callers that may fill. An owner that waited for one of its own would wait for itself.
    holders: Vec<Holder>,
    waiters: VecDeque<Waiter>,
}

/// The caller that the others wait for.
#[derive(Debug)]
struct Leader {
    sequence: Sequence,
    /// The lease that it computes under; `None` while it watches a lease of another process.
    lease: Option<Lease>,
    displaced: Arc<Notify>,
}

/// A caller that may fill.
#[derive(Debug)]
struct Holder {
    sequence: Sequence,
    owner: Owner,
    lease: Lease,
}

#[derive(Debug)]
struct Waiter {
    sequence: Sequence,
    wake: oneshot::Sender<Wake>,
    /// The limit on the values that its plugin instance may be woken with.
    answers: Option<Arc<AnswerLimit>>,
}

/// What a waiter is woken with.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The value.
    Value(Bytes),
    /// The leader has gone, and this waiter is the leader now.
    Lead(LeaderGuard),
    /// The key may have changed: claim again.
    Retry,
}

/// The result of [`InFlight::join`].
#[derive(Debug)]
pub(crate) enum Join {
    /// The key has a leader: wait for it.
    Wait(oneshot::Receiver<Wake>),
    /// The caller is the leader now.
    Lead(LeaderGuard),
}

/// A sequence number. It orders the callers that enter the table and the writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sequence(u64);

/// A caller's registration in a key's slot. If the caller is the leader when this is dropped, exactly one of the
/// waiters becomes leader. An unleased holder has a guard too, but is not the leader.
#[derive(Debug)]
pub(crate) struct LeaderGuard {
    in_flight: Arc<InFlight>,
    key: Key,
    sequence: Sequence,
    displaced: Arc<Notify>,
}

/// The leaders of some keys, as of one point in time.
#[derive(Debug)]
pub(crate) struct Leaders(Vec<(Key, Sequence)>);

impl InFlight {
    /// The next sequence number. Callers that entered the table before this call have lower ones.
    pub(crate) fn now(&self) -> Sequence {
        Sequence(self.next.load(Ordering::SeqCst))
    }

    /// Enters a key's slot after a claim, sent at `claimed`, that found the lease of another caller, or that failed in
    /// an outage.
    ///
    /// A caller that is the leader already stays the leader, unless it was displaced. `None` if the caller holds the
    /// vacancy itself.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        owner: Owner,
        found: Option<&Lease>,
        claimed: Sequence,
        mut guard: Option<LeaderGuard>,
        answers: Option<&Arc<AnswerLimit>>,
    ) -> Option<Join> {
        // Declared after `guard` and so dropped before it: dropping a guard takes the lock.
        let mut table = self.lock();
        let slot = table.entry(key.clone()).or_default();
        let is_own = |holder: &Holder| holder.owner == owner && found.is_none_or(|lease| *lease == holder.lease);
        if slot.holders.iter().any(is_own) {
            return None;
        }
        let joined = if let Some(guard) = guard.take_if(|guard| slot.is_led_by(guard.sequence)) {
            Join::Lead(guard)
        } else if slot.leader.as_ref().is_some_and(|leader| leader.is_worth_waiting_for(found, claimed)) {
            slot.remove_cancelled_waiters();
            let (wake, woken) = oneshot::channel();
            slot.waiters.push_back(Waiter { sequence: self.enter(), wake, answers: answers.cloned() });
            Join::Wait(woken)
        } else {
            // The waiters of a previous leader stay in the slot and wait for the new one.
            Join::Lead(self.replace_leader(key, slot, None))
        };
        self.remove_if_empty(&mut table, key);
        Some(joined)
    }

    /// Registers a caller that was granted a lease as leader and holder.
    pub(crate) fn lead(self: &Arc<Self>, key: &Key, owner: Owner, lease: &Lease) -> LeaderGuard {
        let mut table = self.lock();
        let slot = table.entry(key.clone()).or_default();
        let guard = self.replace_leader(key, slot, Some(lease.clone()));
        slot.holders.push(Holder { sequence: guard.sequence, owner, lease: lease.clone() });
        self.remove_if_empty(&mut table, key);
        guard
    }

    /// Registers a holder without a lease of its own: its wait expired, and it computes although another caller has
    /// `lease`.
    pub(crate) fn unleased(self: &Arc<Self>, key: &Key, owner: Owner, lease: &Lease) -> LeaderGuard {
        let mut table = self.lock();
        let sequence = self.enter();
        let holder = Holder { sequence, owner, lease: lease.clone() };
        table.entry(key.clone()).or_default().holders.push(holder);
        self.remove_if_empty(&mut table, key);
        LeaderGuard { in_flight: Arc::clone(self), key: key.clone(), sequence, displaced: Arc::default() }
    }

    /// The leaders of these keys.
    pub(crate) fn leaders_of<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Leaders {
        if self.is_empty() {
            return Leaders(Vec::new());
        }
        let table = self.lock();
        let leader = |key: &'a Key| Some((key.clone(), table.get(key)?.leader.as_ref()?.sequence));
        Leaders(keys.into_iter().filter_map(leader).collect())
    }

    /// The leaders of the selected keys.
    pub(crate) async fn leaders_in(&self, selection: &Selection) -> Leaders {
        if self.is_empty() {
            return Leaders(Vec::new());
        }
        let leader = |(key, slot): (&Key, &Slot)| Some((key.clone(), slot.leader.as_ref()?.sequence));
        let leaders = self.lock().iter().filter_map(leader).collect();
        Leaders(selection.select(leaders, |(key, _)| key).await)
    }

    /// Records a set or clear. A value claimed from now on is newer than it.
    pub(crate) fn record_write(&self) {
        self.last_write.fetch_max(self.enter().0, Ordering::SeqCst);
    }

    /// Removes these leaders and makes their waiters claim again, after a set or clear of their keys.
    pub(crate) fn invalidate(&self, leaders: Leaders) {
        for (key, sequence) in leaders.0 {
            self.invalidate_leader(&key, sequence);
        }
    }

    /// Removes a leader and makes its waiters claim again. Does nothing if the key has another leader.
    pub(crate) fn invalidate_leader(&self, key: &Key, sequence: Sequence) {
        let mut table = self.lock();
        if let Some(slot) = table.get_mut(key)
            && let Some(leader) = slot.leader.take_if(|leader| leader.sequence == sequence)
        {
            leader.displaced.notify_one();
            wake_all(std::mem::take(&mut slot.waiters), |_| Wake::Retry);
        }
        self.remove_if_empty(&mut table, key);
    }

    /// Makes a new leader and displaces the previous one.
    fn replace_leader(self: &Arc<Self>, key: &Key, slot: &mut Slot, lease: Option<Lease>) -> LeaderGuard {
        let (sequence, displaced) = (self.enter(), Arc::<Notify>::default());
        if let Some(old) = slot.leader.replace(Leader { sequence, lease, displaced: Arc::clone(&displaced) }) {
            old.displaced.notify_one();
        }
        LeaderGuard { in_flight: Arc::clone(self), key: key.clone(), sequence, displaced }
    }

    fn enter(&self) -> Sequence {
        Sequence(self.next.fetch_add(1, Ordering::SeqCst))
    }

    fn is_empty(&self) -> bool {
        self.slot_count.load(Ordering::SeqCst) == 0
    }

    /// Removes a slot without leader and holders. Every change to the table ends with this.
    fn remove_if_empty(&self, table: &mut HashMap<Key, Slot>, key: &Key) {
        if table.get(key).is_some_and(|slot| slot.leader.is_none() && slot.holders.is_empty()) {
            table.remove(key);
        }
        self.slot_count.store(table.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn is_led_by(&self, sequence: Sequence) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.sequence == sequence)
    }

    fn remove_holder(&mut self, sequence: Sequence) {
        self.holders.retain(|holder| holder.sequence != sequence);
    }

    /// Cancelled waiters would accumulate behind a slow leader: at the back if callers do not wait at all, at the front
    /// if their waits expire.
    fn remove_cancelled_waiters(&mut self) {
        let is_cancelled = |waiter: &mut Waiter| waiter.wake.is_closed();
        while self.waiters.pop_back_if(is_cancelled).is_some() || self.waiters.pop_front_if(is_cancelled).is_some() {}
    }
}

impl Leader {
    /// False if the claim found a later lease than the leader's: a set or clear ended the leader's lease, or it
    /// expired.
    fn is_worth_waiting_for(&self, found: Option<&Lease>, claimed: Sequence) -> bool {
        match (&self.lease, found) {
            (None, _) | (_, None) => true,
            (Some(lease), Some(found)) => lease == found || self.sequence >= claimed,
        }
    }
}

impl Waiter {
    /// The value, or `None` if the plugin instance has no room for it now. Its claim then waits for room.
    fn hold(&self, value: &Bytes) -> Option<Bytes> {
        self.answers.as_ref().map_or_else(|| Some(value.clone()), |answers| answers.try_hold(value))
    }
}

fn wake_all(waiters: VecDeque<Waiter>, with: impl Fn(&Waiter) -> Wake) {
    for waiter in waiters {
        let wake = with(&waiter);
        // A cancelled waiter needs no waking.
        let _cancelled = waiter.wake.send(wake);
    }
}

impl LeaderGuard {
    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Completes when another caller becomes leader, or a set or clear invalidates this one.
    pub(crate) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// Wakes the waiters that entered before `read` with the value that the key had at some time after `read`. Later
    /// waiters claim again, because the value may have been cleared before they entered. A leader that entered later
    /// stays, and its waiters with it.
    pub(crate) fn deliver(&self, value: &Bytes, read: Sequence) {
        let mut table = self.in_flight.lock();
        if let Some(slot) = table.get_mut(&self.key) {
            // Also another leader: the key had a value after that one entered, so its fill cannot be stored.
            if let Some(old) = slot.leader.take_if(|leader| leader.sequence < read) {
                old.displaced.notify_one();
            }
            let (earlier, later) =
                std::mem::take(&mut slot.waiters).into_iter().partition(|waiter| waiter.sequence < read);
            wake_all(earlier, |waiter| waiter.hold(value).map_or(Wake::Retry, Wake::Value));
            if slot.leader.is_some() {
                slot.waiters = later;
            } else {
                wake_all(later, |_| Wake::Retry);
            }
        }
        self.in_flight.remove_if_empty(&mut table, &self.key);
    }

    /// As [`LeaderGuard::deliver`], for a value that could not be stored. Does nothing if this caller is no longer the
    /// leader, or after any set or clear since `claimed`: it may have cleared this key.
    pub(crate) fn deliver_unstored(&self, value: &Bytes, read: Sequence, claimed: Sequence) {
        let is_fresh = claimed.0 > self.in_flight.last_write.load(Ordering::SeqCst);
        if is_fresh && self.in_flight.lock().get(&self.key).is_some_and(|slot| slot.is_led_by(self.sequence)) {
            self.deliver(value, read);
        }
    }

    /// Removes the holder, though others may still wait for this leader.
    pub(crate) fn end_holding(&self) {
        if let Some(slot) = self.in_flight.lock().get_mut(&self.key) {
            slot.remove_holder(self.sequence);
        }
    }

    /// Removes this leader and makes its waiters claim again.
    pub(crate) fn invalidate(&self) {
        self.in_flight.invalidate_leader(&self.key, self.sequence);
    }
}

impl Drop for LeaderGuard {
    fn drop(&mut self) {
        // Guards returned by cancelled waiters. Declared first and so dropped after the lock, which their own drop
        // takes.
        let mut returned = Vec::new();
        let mut table = self.in_flight.lock();
        if let Some(slot) = table.get_mut(&self.key) {
            slot.remove_holder(self.sequence);
            if slot.leader.take_if(|leader| leader.sequence == self.sequence).is_some() {
                while let Some(waiter) = slot.waiters.pop_front() {
                    match waiter.wake.send(Wake::Lead(self.in_flight.replace_leader(&self.key, slot, None))) {
                        Ok(()) => break,
                        Err(guard) => {
                            slot.leader = None;
                            returned.push(guard);
                        }
                    }
                }
            }
        }
        self.in_flight.remove_if_empty(&mut table, &self.key);
        drop(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get_or_set::lease::Issuer;

    #[test]
    fn cancelled_waiters_do_not_accumulate() {
        let in_flight = Arc::<InFlight>::default();
        let (key, lease) = (Key::new(None, "k").unwrap(), Issuer::new().issue());
        let _leader = in_flight.lead(&key, Owner::new(), &lease);
        let wait = || in_flight.join(&key, Owner::new(), Some(&lease), in_flight.now(), None, None).unwrap();
        let waiting = || in_flight.lock()[&key].waiters.len();
        for _ in 0..100 {
            drop(wait());
        }
        assert_eq!(waiting(), 1);
        let early: Vec<Join> = (0..100).map(|_| wait()).collect();
        let _patient = wait();
        drop(early);
        let _last = wait();
        assert_eq!(waiting(), 2);
    }

    #[test]
    fn a_waiter_is_woken_with_a_value_that_its_instance_has_room_for_or_claims_again() {
        let in_flight = Arc::<InFlight>::default();
        let (key, lease) = (Key::new(None, "k").unwrap(), Issuer::new().issue());
        let leader = in_flight.lead(&key, Owner::new(), &lease);
        let answers = AnswerLimit::new(3000);
        let limits = [Some(&answers), Some(&answers), None];
        let waits = limits.map(|limit| in_flight.join(&key, Owner::new(), Some(&lease), in_flight.now(), None, limit));
        let value = Bytes::from(vec![1; 1500]);
        leader.deliver(&value, in_flight.now());
        let woken = waits.map(|wait| match wait {
            Some(Join::Wait(mut woken)) => woken.try_recv().unwrap(),
            other => panic!("{other:?}"),
        });
        assert!(matches!(&woken[0], Wake::Value(found) if *found == value));
        assert!(matches!(&woken[1], Wake::Retry), "there is room for one");
        assert!(matches!(&woken[2], Wake::Value(found) if *found == value));
    }

    #[test]
    fn a_slot_without_leader_and_holders_is_removed() {
        let in_flight = Arc::<InFlight>::default();
        let (key, lease) = (Key::new(None, "k").unwrap(), Issuer::new().issue());
        let leader = in_flight.lead(&key, Owner::new(), &lease);
        let unleased = in_flight.unleased(&key, Owner::new(), &lease);
        let woken = in_flight.join(&key, Owner::new(), Some(&lease), in_flight.now(), None, None).unwrap();
        drop(leader);
        let Join::Wait(mut woken) = woken else { panic!("the key has a leader") };
        let Ok(Wake::Lead(next)) = woken.try_recv() else { panic!("the waiter becomes leader") };
        assert!(in_flight.lock().contains_key(&key));
        drop((next, unleased));
        assert!(in_flight.lock().is_empty());
        assert!(in_flight.is_empty());
    }
}
