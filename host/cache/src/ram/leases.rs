//! The leases of a RAM cache. They do not lapse: no holder here is gone without giving its lease back, and one who takes
//! too long has it taken away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{Claim, Key, Lease, Selection};

#[derive(Debug, Default)]
pub(super) struct Leases {
    /// A std mutex: nothing awaits while it is held.
    table: Mutex<HashMap<Key, Lease>>,
    /// How many there are, so that a set or clear takes no lock where nobody computes.
    count: AtomicUsize,
    /// Told of the end of any lease.
    ended: Notify,
}

impl Leases {
    /// The value that `look` finds, or the lease of whoever came first.
    pub(super) fn claim(&self, key: &Key, lease: &Lease, look: impl Fn() -> Option<Bytes>) -> Claim {
        if let Some(value) = look() {
            return Claim::Value(value);
        }
        let mut table = self.lock();
        if let Some(found) = table.get(key) {
            return Claim::Leased(found.clone());
        }
        // A fill ends its lease and stores under the lock, so that one of the two is always seen.
        if let Some(value) = look() {
            return Claim::Value(value);
        }
        table.insert(key.clone(), lease.clone());
        self.count(&table);
        Claim::Granted
    }

    /// Stores by `store` where the key still has the lease, and ends it.
    pub(super) fn fill(&self, key: &Key, lease: &Lease, store: impl FnOnce() -> bool) -> bool {
        let mut table = self.lock();
        if table.get(key) != Some(lease) {
            return false;
        }
        table.remove(key);
        let is_stored = store();
        // Only now: a clear that counts no lease must find the value.
        self.count(&table);
        self.ended.notify_waiters();
        is_stored
    }

    pub(super) fn has(&self, key: &Key, lease: &Lease) -> bool {
        self.lock().get(key) == Some(lease)
    }

    /// Ends this lease, where the key still has it.
    pub(super) fn abandon(&self, key: &Key, lease: &Lease) {
        let mut table = self.lock();
        if table.get(key) == Some(lease) {
            table.remove(key);
            self.count(&table);
            self.ended.notify_waiters();
        }
    }

    /// Ends the leases of these keys, before a set or clear of them.
    pub(super) fn end<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        // A lease granted after this looked needs no end: what is computed under it is as new as the set or clear.
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
    pub(super) async fn end_selected(&self, selection: &Selection) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let keys = self.lock().keys().cloned().collect();
        self.end(&selection.pick(keys, |key| key).await);
    }

    /// Ends when the key no longer has the lease.
    pub(super) async fn changed(&self, key: &Key, lease: &Lease) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on no end is missed.
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
