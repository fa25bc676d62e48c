//! The leases of a RAM cache. They do not expire: a holder in this process always releases its lease, at the latest
//! after `max_lease`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::get_or_set::lease::{Claim, Lease};
use crate::key::{Key, Selection};

#[derive(Debug, Default)]
pub(super) struct Leases {
    /// A std mutex: nothing awaits while it is locked.
    table: Mutex<HashMap<Key, Lease>>,
    /// The number of leases. While it is zero, a set or clear takes no lock.
    count: AtomicUsize,
    /// Notified when any lease ends.
    ended: Notify,
}

impl Leases {
    /// Returns the value that `look_up` finds, or the key's lease, or stores `lease`.
    pub(super) fn claim(&self, key: &Key, lease: &Lease, look_up: impl Fn() -> Option<Bytes>) -> Claim {
        if let Some(value) = look_up() {
            return Claim::Value(value);
        }
        let mut table = self.lock();
        if let Some(found) = table.get(key) {
            return Claim::Leased(found.clone());
        }
        // A fill ends its lease and stores its value under the lock, so a claim always sees one of the two.
        if let Some(value) = look_up() {
            return Claim::Value(value);
        }
        table.insert(key.clone(), lease.clone());
        self.count(&table);
        Claim::Granted
    }

    /// Ends the lease and calls `store`, if the key still holds the lease.
    pub(super) fn fill(&self, key: &Key, lease: &Lease, store: impl FnOnce() -> bool) -> bool {
        let mut table = self.lock();
        if table.get(key) != Some(lease) {
            return false;
        }
        table.remove(key);
        let is_stored = store();
        // After `store`: a clear that finds the count at zero must find the value.
        self.count(&table);
        self.ended.notify_waiters();
        is_stored
    }

    /// Makes a call during which no claim is granted.
    pub(super) fn without_claims<T>(&self, call: impl FnOnce() -> T) -> T {
        let _table = self.lock();
        call()
    }

    /// Makes a call that may store a value under the key, during which no claim is granted and no fill is stored. It returns
    /// whether it did; then the key's lease ends.
    pub(super) fn store<T>(&self, key: &Key, call: impl FnOnce() -> (bool, T)) -> T {
        let mut table = self.lock();
        let (is_stored, outcome) = call();
        if is_stored && table.remove(key).is_some() {
            self.count(&table);
            self.ended.notify_waiters();
        }
        outcome
    }

    pub(super) fn has(&self, key: &Key, lease: &Lease) -> bool {
        self.lock().get(key) == Some(lease)
    }

    /// Ends this lease, if the key still holds it.
    pub(super) fn release(&self, key: &Key, lease: &Lease) {
        let mut table = self.lock();
        if table.get(key) == Some(lease) {
            table.remove(key);
            self.count(&table);
            self.ended.notify_waiters();
        }
    }

    /// Ends the leases of these keys, before a set or clear of them.
    pub(super) fn remove<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        // A lease granted after this check may stay: its value is computed after the set or clear began.
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut table = self.lock();
        for key in keys {
            table.remove(key);
        }
        self.count(&table);
        self.ended.notify_waiters();
    }

    /// Ends the leases of the selected keys, before a clear of them.
    pub(super) async fn remove_selected(&self, selection: &Selection) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let keys = self.lock().keys().cloned().collect();
        self.remove(&selection.select(keys, |key| key).await);
    }

    /// Completes when the key no longer holds the lease.
    pub(super) async fn changed(&self, key: &Key, lease: &Lease) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Enabled before the check, so that no notification is missed.
            ended.as_mut().enable();
            if !self.has(key, lease) {
                return;
            }
            ended.await;
        }
    }

    fn count(&self, table: &HashMap<Key, Lease>) {
        self.count.store(table.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Lease>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
