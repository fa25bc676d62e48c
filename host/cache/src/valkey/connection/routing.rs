//! Routing: which connection to a server a call uses, by the key and by the size of its value.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

// Decision: docs/decisions/0046-large-values-use-a-bulk-connection.md
/// A value of more bytes is large: calls behind it on the same connection would wait. It takes 0.5 ms at 1 Gbit/s.
const LARGE_VALUE: usize = 64 << 10;

/// A batch of more keys is large, whatever the sizes of its values. The values of a smaller batch without large values
/// are at most 1 MiB.
const LARGE_BATCH: usize = 16;

/// The number of keys with large values that are tracked. If two keys share an entry, the later one replaces the other.
const TRACKED_KEYS: usize = 4096;

/// The connection of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) enum Route {
    /// One of the regular connections: the number modulo the number of connections selects it.
    Regular(u64),
    /// The bulk connection.
    Bulk,
}

/// An entry of a batch.
pub(in crate::valkey) trait BatchEntry {
    /// The key, as it is stored on the server.
    fn key(&self) -> &[u8];

    /// The bytes of the value that is sent, 0 if none is.
    fn size(&self) -> usize {
        0
    }
}

impl BatchEntry for String {
    fn key(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl BatchEntry for Vec<u8> {
    fn key(&self) -> &[u8] {
        self
    }
}

impl BatchEntry for (String, Bytes) {
    fn key(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn size(&self) -> usize {
        self.1.len()
    }
}

// Decision: docs/decisions/0047-the-calls-about-one-key-stay-on-one-connection.md
/// Selects routes, and tracks the keys whose values were large when last seen.
///
/// The calls for a key to which a large value was sent use the bulk connection until a call sees the key without one.
/// They stay behind that value on the same connection, even if the call that sent it timed out.
#[derive(Debug)]
pub(in crate::valkey) struct Router {
    /// The number of regular connections to a server.
    connections: u64,
    hasher: RandomState,
    /// Whether any key was ever tracked. Most caches never track one.
    any: AtomicBool,
    /// The hashes of the tracked keys; 0 is a free entry.
    tracked: Vec<AtomicU64>,
}

impl Router {
    /// A router for this number of regular connections to each server.
    pub(in crate::valkey) fn new(connections: u16) -> Self {
        let tracked = std::iter::repeat_with(AtomicU64::default).take(TRACKED_KEYS).collect();
        Self { connections: u64::from(connections), hasher: RandomState::new(), any: AtomicBool::new(false), tracked }
    }

    /// The route of a call that sends a value of `size` bytes for a key.
    pub(in crate::valkey) fn route(&self, key: &[u8], size: usize) -> Route {
        if size > LARGE_VALUE {
            self.observe(key, size, Route::Bulk);
            return Route::Bulk;
        }
        // Without a choice there is no need for the hash.
        let any = self.any.load(Ordering::Relaxed);
        if !any && self.connections == 1 {
            return Route::Regular(0);
        }
        let hash = self.hash(key);
        if any && self.entry(hash).is_some_and(|entry| entry.load(Ordering::Relaxed) == hash) {
            return Route::Bulk;
        }
        Route::Regular(hash)
    }

    /// The route of a batch: that of its first key, or the bulk connection if the batch or one of its values is large.
    pub(in crate::valkey) fn route_batch(&self, entries: &[impl BatchEntry]) -> Route {
        let mut route = Route::Regular(0);
        for (nth, entry) in entries.iter().enumerate() {
            match self.route(entry.key(), entry.size()) {
                Route::Bulk => route = Route::Bulk,
                first if nth == 0 => route = first,
                Route::Regular(_) => {}
            }
        }
        if entries.len() > LARGE_BATCH { Route::Bulk } else { route }
    }

    /// Records that a call on this route saw a key with a value of `size` bytes, 0 for no value. The calls for a key
    /// without a large value return to the regular connections only if this call used the bulk connection, and so was
    /// behind every large value that was sent for the key.
    pub(in crate::valkey) fn observe(&self, key: &[u8], size: usize, route: Route) {
        let is_large = size > LARGE_VALUE;
        if !is_large && (route != Route::Bulk || !self.any.load(Ordering::Relaxed)) {
            return;
        }
        let hash = self.hash(key);
        let Some(entry) = self.entry(hash) else { return };
        if is_large {
            entry.store(hash, Ordering::Relaxed);
            self.any.store(true, Ordering::Relaxed);
        } else {
            let _of_another_key = entry.compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        // 0 is a free entry.
        self.hasher.hash_one(key).max(1)
    }

    fn entry(&self, hash: u64) -> Option<&AtomicU64> {
        usize::try_from(hash).ok().and_then(|hash| self.tracked.get(hash % TRACKED_KEYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, size: usize) -> (String, Bytes) {
        (key.to_owned(), vec![0; size].into())
    }

    #[test]
    fn a_key_uses_the_bulk_connection_from_a_large_value_until_it_is_seen_without_one() {
        let router = Router::new(1);
        assert_eq!(router.route(b"k", LARGE_VALUE), Route::Regular(0));
        assert_eq!(router.route(b"k", LARGE_VALUE + 1), Route::Bulk);
        assert_eq!(router.route(b"k", 0), Route::Bulk);
        assert!(matches!(router.route(b"other", 0), Route::Regular(_)));
        router.observe(b"other", 0, Route::Bulk);
        assert_eq!(router.route(b"k", 0), Route::Bulk);
        // The reply to a call that was sent before the large value.
        router.observe(b"k", 0, Route::Regular(0));
        assert_eq!(router.route(b"k", 0), Route::Bulk);
        router.observe(b"k", LARGE_VALUE, Route::Bulk);
        assert!(matches!(router.route(b"k", 0), Route::Regular(_)));
        router.observe(b"k", LARGE_VALUE + 1, Route::Regular(0));
        assert_eq!(router.route(b"k", 0), Route::Bulk);
    }

    #[test]
    fn a_batch_uses_the_bulk_connection_for_its_length_or_for_one_of_its_keys() {
        let router = Router::new(1);
        let route = |count: usize, size| router.route_batch(&vec![entry("k", size); count]);
        assert_eq!(route(LARGE_BATCH, 1), Route::Regular(0));
        assert_eq!(route(LARGE_BATCH + 1, 1), Route::Bulk);
        router.observe(b"l", LARGE_VALUE + 1, Route::Regular(0));
        assert_eq!(router.route_batch(&["k".to_owned(), "l".to_owned()]), Route::Bulk);
        assert!(matches!(route(1, 0), Route::Regular(_)));
        assert_eq!(route(1, LARGE_VALUE + 1), Route::Bulk);
    }

    #[test]
    fn a_key_keeps_its_connection_and_keys_are_spread_over_all_connections() {
        let router = Router::new(4);
        let connection = |key: u32| match router.route(key.to_string().as_bytes(), 0) {
            Route::Regular(hash) => hash % 4,
            Route::Bulk => panic!("no value is large"),
        };
        let mut counts = [0_u32; 4];
        for key in 0..1000 {
            assert_eq!(connection(key), connection(key));
            counts[usize::try_from(connection(key)).unwrap()] += 1;
        }
        // A count is 250 on average, with a standard deviation of 14. The hash differs from run to run.
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
    }
}
