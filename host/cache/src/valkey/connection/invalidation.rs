//! Waiters for changes of keys, woken by the server's invalidation messages.

// Decision: docs/decisions/0005-waiting-for-another-process-uses-client-tracking.md

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The keys that are waited for on one server, as they stand there.
#[derive(Debug, Default)]
pub(in crate::valkey) struct Watchers(Mutex<HashMap<Vec<u8>, Arc<Notify>>>);

impl Watchers {
    /// Waits for a key's changes from now on.
    pub(in crate::valkey) fn watch(self: &Arc<Self>, key: &str) -> Watched {
        let change = Arc::clone(self.lock().entry(key.as_bytes().to_vec()).or_default());
        Watched { watchers: Arc::clone(self), key: key.to_owned(), change }
    }

    /// Wakes those who wait for a change of this key.
    pub(in crate::valkey) fn wake(&self, key: &[u8]) {
        if let Some(change) = self.lock().get(key) {
            change.notify_waiters();
        }
    }

    /// Wakes all: nothing is known of any key.
    pub(in crate::valkey) fn wake_all(&self) {
        self.lock().values().for_each(|change| change.notify_waiters());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is waited for.
#[derive(Debug)]
pub(in crate::valkey) struct Watched {
    watchers: Arc<Watchers>,
    key: String,
    change: Arc<Notify>,
}

impl Watched {
    /// Ends at the key's next change, once it has been enabled or polled.
    pub(in crate::valkey) fn change(&self) -> Notified<'_> {
        self.change.notified()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut keys = self.watchers.lock();
        // Given up under the lock, so that of two who end together the second sees that it is the last.
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
    async fn a_key_s_watchers_are_woken_and_no_others() {
        let watchers = Arc::<Watchers>::default();
        let (a, b) = (watchers.watch("a"), watchers.watch("b"));
        let (mut a_changes, mut b_changes) = (std::pin::pin!(a.change()), std::pin::pin!(b.change()));
        a_changes.as_mut().enable();
        b_changes.as_mut().enable();
        watchers.wake(b"a");
        a_changes.await;
        tokio::select! {
            biased;
            () = &mut b_changes => panic!("`b` has not changed"),
            () = std::future::ready(()) => {}
        }
        watchers.wake_all();
        b_changes.await;
    }

    #[test]
    fn the_last_watcher_of_a_key_leaves_nothing_behind() {
        let watchers = Arc::<Watchers>::default();
        let (one, two) = (watchers.watch("k"), watchers.watch("k"));
        drop(one);
        assert_eq!(watchers.lock().len(), 1);
        drop(two);
        assert_eq!(watchers.lock().len(), 0);
    }
}
