//! Who of this process computes which key, and who waits for it.
//!
//! Nothing here decides whose value is stored: the lease in the backend decides that. This table only sees to it that
//! callers who want the same key wait once for all, and are woken with the value, or to ask again.

// Decision: docs/decisions/0003-the-in-flight-table-wakes-waiters-and-decides-nothing.md

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::{Key, Lease, Selection};

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

/// The flights of one cache: a slot for each key that somebody of this process computes or waits for.
#[derive(Debug)]
pub(crate) struct Flights {
    /// A std mutex: nothing awaits while it is held.
    table: Mutex<HashMap<Key, Slot>>,
    /// How many keys the table holds, so that a set or clear with nobody about takes no lock.
    busy_keys: AtomicUsize,
    /// Counts all that enters the table, and all that is set and cleared, in their order.
    next: AtomicU64,
    /// When something was last set or cleared.
    last_write: AtomicU64,
}

impl Default for Flights {
    fn default() -> Self {
        let (next, last_write) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { table: Mutex::default(), busy_keys: AtomicUsize::new(0), next, last_write }
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// The one whom others wait for.
    lead: Option<Lead>,
    /// All who may fill, which is to detect that one of them waits for himself.
    holders: Vec<Holder>,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Lead {
    place: Moment,
    /// The lease he computes under; none while he looks out for one that another process has.
    lease: Option<Lease>,
    displaced: Arc<Notify>,
}

#[derive(Debug)]
struct Holder {
    place: Moment,
    owner: Owner,
    lease: Lease,
}

#[derive(Debug)]
struct Waiter {
    since: Moment,
    wake: oneshot::Sender<Wake>,
}

/// What a waiter is woken with.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The value.
    Value(Bytes),
    /// The one who was waited for gave up, and this waiter has his place.
    Seat(Seat),
    /// Something has changed: ask again.
    AskAgain,
}

/// What [`Flights::join`] answers.
#[derive(Debug)]
pub(crate) enum Join {
    /// Somebody of this process sees to the key: wait for him.
    Wait(oneshot::Receiver<Wake>),
    /// Nobody does: the caller is the one whom others wait for from now on.
    Seat(Seat),
}

/// A moment in the order of all that enters the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// A caller's place in a key's slot. Where others wait for it, dropping it passes it on to exactly one of them.
#[derive(Debug)]
pub(crate) struct Seat {
    flights: Arc<Flights>,
    key: Key,
    place: Moment,
    displaced: Arc<Notify>,
}

/// Those who were waited for at some moment, by key.
#[derive(Debug)]
pub(crate) struct Leads(Vec<(Key, Moment)>);

impl Flights {
    /// The present moment. Who waits since before it asked before it.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.next.load(Ordering::SeqCst))
    }

    /// Enters a key's slot after a claim, sent at `asked`, that found another's lease, or no answer.
    ///
    /// A caller that has the seat already keeps it, unless another one took its place. `None` where the caller holds
    /// the vacancy itself.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        owner: Owner,
        found: Option<&Lease>,
        asked: Moment,
        mut seat: Option<Seat>,
    ) -> Option<Join> {
        // Declared after `seat` and so dropped before it: a seat's drop takes the lock.
        let mut table = self.lock();
        let slot = table.entry(key.clone()).or_default();
        let is_own = |holder: &Holder| holder.owner == owner && found.is_none_or(|lease| *lease == holder.lease);
        if slot.holders.iter().any(is_own) {
            return None;
        }
        let joined =
            if let Some(seat) = seat.take_if(|seat| slot.lead.as_ref().is_some_and(|lead| lead.place == seat.place)) {
                Join::Seat(seat)
            } else if slot.lead.as_ref().is_some_and(|lead| lead.is_worth_waiting_for(found, asked)) {
                slot.forget_the_gone();
                let (wake, woken) = oneshot::channel();
                slot.waiters.push_back(Waiter { since: self.enter(), wake });
                Join::Wait(woken)
            } else {
                // Whoever waits in this slot waits for the new lead now.
                Join::Seat(self.seat(key, slot, None))
            };
        self.tidy(&mut table, key);
        Some(joined)
    }

    /// The place of a caller that was granted a lease. It is the one whom others wait for from now on.
    pub(crate) fn lead(self: &Arc<Self>, key: &Key, owner: Owner, lease: &Lease) -> Seat {
        let mut table = self.lock();
        let slot = table.entry(key.clone()).or_default();
        let seat = self.seat(key, slot, Some(lease.clone()));
        slot.holders.push(Holder { place: seat.place, owner, lease: lease.clone() });
        self.tidy(&mut table, key);
        seat
    }

    /// The place of a caller whose wait ran out, and who computes although another has the lease.
    pub(crate) fn loose(self: &Arc<Self>, key: &Key, owner: Owner, lease: &Lease) -> Seat {
        let mut table = self.lock();
        let place = self.enter();
        let holder = Holder { place, owner, lease: lease.clone() };
        table.entry(key.clone()).or_default().holders.push(holder);
        self.tidy(&mut table, key);
        Seat { flights: Arc::clone(self), key: key.clone(), place, displaced: Arc::default() }
    }

    /// Those who are waited for under these keys.
    pub(crate) fn leads_of<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Leads {
        if self.is_idle() {
            return Leads(Vec::new());
        }
        let table = self.lock();
        Leads(keys.into_iter().filter_map(|key| Some((key.clone(), table.get(key)?.lead.as_ref()?.place))).collect())
    }

    /// Those who are waited for under the selected keys.
    pub(crate) async fn leads_in(&self, selection: &Selection) -> Leads {
        if self.is_idle() {
            return Leads(Vec::new());
        }
        let lead = |(key, slot): (&Key, &Slot)| Some((key.clone(), slot.lead.as_ref()?.place));
        let leads = self.lock().iter().filter_map(lead).collect();
        Leads(selection.pick(leads, |(key, _)| key).await)
    }

    /// Something was set or cleared. What is claimed from now on is as new as that.
    pub(crate) fn note_write(&self) {
        self.last_write.fetch_max(self.enter().0, Ordering::SeqCst);
    }

    /// After a set or clear of their keys nobody waits for these any more.
    pub(crate) fn overtake(&self, leads: Leads) {
        for (key, place) in leads.0 {
            self.give_up_on(&key, place);
        }
    }

    /// Makes those who wait for this place ask again.
    pub(crate) fn give_up_on(&self, key: &Key, place: Moment) {
        let mut table = self.lock();
        if let Some(slot) = table.get_mut(key)
            && let Some(lead) = slot.lead.take_if(|lead| lead.place == place)
        {
            lead.displaced.notify_one();
            wake_all(std::mem::take(&mut slot.waiters), || Wake::AskAgain);
        }
        self.tidy(&mut table, key);
    }

    /// A new lead's seat.
    fn seat(self: &Arc<Self>, key: &Key, slot: &mut Slot, lease: Option<Lease>) -> Seat {
        let (place, displaced) = (self.enter(), Arc::<Notify>::default());
        if let Some(old) = slot.lead.replace(Lead { place, lease, displaced: Arc::clone(&displaced) }) {
            old.displaced.notify_one();
        }
        Seat { flights: Arc::clone(self), key: key.clone(), place, displaced }
    }

    fn enter(&self) -> Moment {
        Moment(self.next.fetch_add(1, Ordering::SeqCst))
    }

    fn is_idle(&self) -> bool {
        self.busy_keys.load(Ordering::SeqCst) == 0
    }

    /// Forgets a key that nobody sees to.
    fn tidy(&self, table: &mut HashMap<Key, Slot>, key: &Key) {
        if table.get(key).is_some_and(|slot| slot.lead.is_none() && slot.holders.is_empty()) {
            table.remove(key);
        }
        self.busy_keys.store(table.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Those who have gone would pile up behind a lead who takes long: at the end when callers do not wait at all, at the
    /// front when their waits run out.
    fn forget_the_gone(&mut self) {
        let is_gone = |waiter: &mut Waiter| waiter.wake.is_closed();
        while self.waiters.pop_back_if(is_gone).is_some() || self.waiters.pop_front_if(is_gone).is_some() {}
    }
}

impl Lead {
    /// Not when the claim found a later lease than his: then a set or clear ended his, or it lapsed.
    fn is_worth_waiting_for(&self, found: Option<&Lease>, asked: Moment) -> bool {
        match (&self.lease, found) {
            (None, _) | (_, None) => true,
            (Some(lease), Some(found)) => lease == found || self.place >= asked,
        }
    }
}

fn wake_all(waiters: VecDeque<Waiter>, with: impl Fn() -> Wake) {
    for waiter in waiters {
        // A waiter who has gone needs no waking.
        let _gone = waiter.wake.send(with());
    }
}

impl Seat {
    pub(crate) fn place(&self) -> Moment {
        self.place
    }

    /// Ends when another caller takes this place, or a set or clear makes it void.
    pub(crate) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// Gives the value that the key had at some moment after `since` to those who asked before. Who asked later asks
    /// again, as it may have been cleared by the time he did; but a lead who came later is waited for.
    pub(crate) fn serve(&self, value: &Bytes, since: Moment) {
        let mut table = self.flights.lock();
        if let Some(slot) = table.get_mut(&self.key) {
            // Also where another one leads: the key had a value after he began, so his comes too late.
            if let Some(old) = slot.lead.take_if(|lead| lead.place < since) {
                old.displaced.notify_one();
            }
            let (before, after) =
                std::mem::take(&mut slot.waiters).into_iter().partition(|waiter| waiter.since < since);
            wake_all(before, || Wake::Value(value.clone()));
            if slot.lead.is_some() {
                slot.waiters = after;
            } else {
                wake_all(after, || Wake::AskAgain);
            }
        }
        self.flights.tidy(&mut table, &self.key);
    }

    /// Gives a value that could not be stored to those who asked for it before `since` and still wait for this seat, if
    /// nothing was set or cleared here since it was claimed, at `asked`. The clear may have meant this very key.
    pub(crate) fn share(&self, value: &Bytes, since: Moment, asked: Moment) {
        let is_lead = |slot: &Slot| slot.lead.as_ref().is_some_and(|lead| lead.place == self.place);
        let is_new = asked.0 > self.flights.last_write.load(Ordering::SeqCst);
        if is_new && self.flights.lock().get(&self.key).is_some_and(is_lead) {
            self.serve(value, since);
        }
    }

    /// Its owner computes no longer, though others still wait for this seat.
    pub(crate) fn resign(&self) {
        if let Some(slot) = self.flights.lock().get_mut(&self.key) {
            slot.holders.retain(|holder| holder.place != self.place);
        }
    }

    /// Makes those who wait for this seat ask again.
    pub(crate) fn give_up(&self) {
        self.flights.give_up_on(&self.key, self.place);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Seats refused by waiters who have gone. They are dropped after the lock, which their own drop takes.
        let mut refused = Vec::new();
        let mut table = self.flights.lock();
        if let Some(slot) = table.get_mut(&self.key) {
            slot.holders.retain(|holder| holder.place != self.place);
            if slot.lead.take_if(|lead| lead.place == self.place).is_some() {
                while let Some(waiter) = slot.waiters.pop_front() {
                    match waiter.wake.send(Wake::Seat(self.flights.seat(&self.key, slot, None))) {
                        Ok(()) => break,
                        Err(seat) => {
                            slot.lead = None;
                            refused.push(seat);
                        }
                    }
                }
            }
        }
        self.flights.tidy(&mut table, &self.key);
        drop(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Issuer;

    #[test]
    fn callers_that_have_gone_do_not_pile_up() {
        let flights = Arc::<Flights>::default();
        let (key, lease) = (Key::new(None, "k").unwrap(), Issuer::new().issue());
        let _lead = flights.lead(&key, Owner::new(), &lease);
        let wait = || flights.join(&key, Owner::new(), Some(&lease), flights.now(), None).unwrap();
        let waiting = || flights.lock()[&key].waiters.len();
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
    fn a_key_that_nobody_sees_to_is_forgotten() {
        let flights = Arc::<Flights>::default();
        let (key, lease) = (Key::new(None, "k").unwrap(), Issuer::new().issue());
        let lead = flights.lead(&key, Owner::new(), &lease);
        let loose = flights.loose(&key, Owner::new(), &lease);
        let woken = flights.join(&key, Owner::new(), Some(&lease), flights.now(), None).unwrap();
        drop(lead);
        let Join::Wait(mut woken) = woken else { panic!("somebody leads") };
        let Ok(Wake::Seat(heir)) = woken.try_recv() else { panic!("the seat is passed on") };
        assert!(flights.lock().contains_key(&key));
        drop((heir, loose));
        assert!(flights.lock().is_empty());
        assert!(flights.is_idle());
    }
}
