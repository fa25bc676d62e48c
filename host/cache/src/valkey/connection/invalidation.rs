//! Invalidation: waiters for changes of keys, woken by the messages of client tracking.

// Decision: docs/decisions/0005-waiting-for-another-process-uses-client-tracking.md

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The keys that are watched, as they are stored on the server.
#[derive(Debug, Default)]
pub(in crate::valkey) struct Invalidations(Mutex<HashMap<Vec<u8>, Arc<Notify>>>);

impl Invalidations {
    /// Watches a key until the subscription is dropped.
    pub(in crate::valkey) fn subscribe(self: &Arc<Self>, key: &str) -> Subscription {
        let change = Arc::clone(self.lock().entry(key.as_bytes().to_vec()).or_default());
        Subscription { invalidations: Arc::clone(self), key: key.to_owned(), change }
    }

    /// Wakes the waiters for this key.
    pub(in crate::valkey) fn invalidate(&self, key: &[u8]) {
        if let Some(change) = self.lock().get(key) {
            change.notify_waiters();
        }
    }

    /// Wakes all waiters: any key may have changed.
    pub(in crate::valkey) fn invalidate_all(&self) {
        self.lock().values().for_each(|change| change.notify_waiters());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is watched.
#[derive(Debug)]
pub(in crate::valkey) struct Subscription {
    invalidations: Arc<Invalidations>,
    key: String,
    change: Arc<Notify>,
}

impl Subscription {
    /// Completes at the key's next change after the future was first enabled or polled.
    pub(in crate::valkey) fn change(&self) -> Notified<'_> {
        self.change.notified()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut keys = self.invalidations.lock();
        // Dropped under the lock, so that the last of several concurrent drops sees that it is the last.
        drop(std::mem::take(&mut self.change));
        if keys.get(self.key.as_bytes()).is_some_and(|change| Arc::strong_count(change) == 1) {
            keys.remove(self.key.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_invalidation_wakes_the_waiters_for_its_key_only() {
        let invalidations = Arc::<Invalidations>::default();
        let (a, b) = (invalidations.subscribe("a"), invalidations.subscribe("b"));
        let (mut a_changes, mut b_changes) = (std::pin::pin!(a.change()), std::pin::pin!(b.change()));
        a_changes.as_mut().enable();
        b_changes.as_mut().enable();
        invalidations.invalidate(b"a");
        a_changes.await;
        tokio::select! {
            biased;
            () = &mut b_changes => panic!("`b` has not changed"),
            () = std::future::ready(()) => {}
        }
        invalidations.invalidate_all();
        b_changes.await;
    }

    #[test]
    fn the_last_subscription_to_a_key_removes_its_entry() {
        let invalidations = Arc::<Invalidations>::default();
        let (one, two) = (invalidations.subscribe("k"), invalidations.subscribe("k"));
        drop(one);
        assert_eq!(invalidations.lock().len(), 1);
        drop(two);
        assert_eq!(invalidations.lock().len(), 0);
    }
}
