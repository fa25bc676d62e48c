//! Which keys have large values, as far as this process has seen: a call about one of them goes a way of its own.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

// Decision: docs/decisions/0046-large-values-use-a-bulk-connection.md
/// A value of more bytes is large: it would hold up what comes behind it. It takes 0.5 ms at 1 Gbit/s.
pub(in crate::valkey) const LARGE: usize = 64 << 10;

/// A batch of more keys is large: small as each value may be, all together are not. So many values that are not large are
/// at most 1 MiB.
const LARGE_BATCH: usize = 16;

/// So many keys are remembered. Where two meet the later one is.
const REMEMBERED: usize = 4096;

/// Which of the connections to a server a call goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) enum Way {
    /// One of those that all calls share; the number says which, by its remainder.
    Shared(u64),
    /// The one for what is large.
    Aside,
}

// Decision: docs/decisions/0047-the-calls-about-one-key-stay-on-one-connection.md
/// The keys whose values were large when last seen, and which way calls about keys go.
///
/// A key that was sent a large value stays on the way aside until it is seen without one. So what is called about it
/// comes behind that value on the same connection, even if nobody waited for the value's answer.
#[derive(Debug)]
pub(in crate::valkey) struct LargeKeys {
    /// Over how many connections calls are spread.
    spread: u64,
    hasher: RandomState,
    /// Whether any key was ever remembered. As a rule none is.
    any: AtomicBool,
    hashes: Vec<AtomicU64>,
}

impl LargeKeys {
    /// Calls are spread over so many connections.
    pub(in crate::valkey) fn new(connections: u16) -> Self {
        let hashes = std::iter::repeat_with(AtomicU64::default).take(REMEMBERED).collect();
        Self { spread: u64::from(connections), hasher: RandomState::new(), any: AtomicBool::new(false), hashes }
    }

    /// The way of a call about a key that brings so many bytes.
    pub(in crate::valkey) fn way(&self, key: &str, bytes: usize) -> Way {
        if bytes > LARGE {
            self.found(key, bytes, Way::Aside);
            return Way::Aside;
        }
        // The hash is not needed as long as all go the same way.
        let any = self.any.load(Ordering::Relaxed);
        if !any && self.spread == 1 {
            return Way::Shared(0);
        }
        let hash = self.hash(key);
        if any && self.place(hash).is_some_and(|place| place.load(Ordering::Relaxed) == hash) {
            return Way::Aside;
        }
        Way::Shared(hash)
    }

    /// The way of a call about many keys, each with so many bytes.
    pub(in crate::valkey) fn way_of_batch<'a>(&self, entries: impl ExactSizeIterator<Item = (&'a str, usize)>) -> Way {
        let is_large = entries.len() > LARGE_BATCH;
        let mut way = Way::Shared(0);
        for (nth, (key, bytes)) in entries.enumerate() {
            match self.way(key, bytes) {
                Way::Aside => way = Way::Aside,
                first if nth == 0 => way = first,
                Way::Shared(_) => {}
            }
        }
        if is_large { Way::Aside } else { way }
    }

    /// A call that went this way saw a key with a value of so many bytes, or with none. Without a large one the key
    /// returns to the others, if the call came behind whatever large value it was sent.
    pub(in crate::valkey) fn found(&self, key: &str, bytes: usize, way: Way) {
        let is_large = bytes > LARGE;
        if !is_large && (way != Way::Aside || !self.any.load(Ordering::Relaxed)) {
            return;
        }
        let hash = self.hash(key);
        let Some(place) = self.place(hash) else { return };
        if is_large {
            place.store(hash, Ordering::Relaxed);
            self.any.store(true, Ordering::Relaxed);
        } else {
            let _another_key_s = place.compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn hash(&self, key: &str) -> u64 {
        // Zero stands for no key.
        self.hasher.hash_one(key).max(1)
    }

    fn place(&self, hash: u64) -> Option<&AtomicU64> {
        usize::try_from(hash).ok().and_then(|hash| self.hashes.get(hash % REMEMBERED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_aside_from_its_large_value_until_it_is_seen_without() {
        let keys = LargeKeys::new(1);
        assert_eq!(keys.way("k", LARGE), Way::Shared(0));
        assert_eq!(keys.way("k", LARGE + 1), Way::Aside);
        assert_eq!(keys.way("k", 0), Way::Aside);
        assert!(matches!(keys.way("other", 0), Way::Shared(_)));
        keys.found("other", 0, Way::Aside);
        assert_eq!(keys.way("k", 0), Way::Aside);
        // The answer to a call that was sent before the large value.
        keys.found("k", 0, Way::Shared(0));
        assert_eq!(keys.way("k", 0), Way::Aside);
        keys.found("k", LARGE, Way::Aside);
        assert!(matches!(keys.way("k", 0), Way::Shared(_)));
        keys.found("k", LARGE + 1, Way::Shared(0));
        assert_eq!(keys.way("k", 0), Way::Aside);
    }

    #[test]
    fn a_batch_goes_aside_for_its_length_or_for_one_of_its_keys() {
        let keys = LargeKeys::new(1);
        let way = |count: usize, bytes| keys.way_of_batch((0..count).map(|_| ("k", bytes)));
        assert_eq!(way(LARGE_BATCH, 1), Way::Shared(0));
        assert_eq!(way(LARGE_BATCH + 1, 1), Way::Aside);
        keys.found("l", LARGE + 1, Way::Shared(0));
        assert_eq!(keys.way_of_batch([("k", 0), ("l", 0)].into_iter()), Way::Aside);
        assert!(matches!(way(1, 0), Way::Shared(_)));
        assert_eq!(way(1, LARGE + 1), Way::Aside);
    }

    #[test]
    fn a_key_always_goes_the_same_way_and_many_go_all_ways() {
        let keys = LargeKeys::new(4);
        let way = |key: u32| match keys.way(&key.to_string(), 0) {
            Way::Shared(hash) => hash % 4,
            Way::Aside => panic!("nothing is large"),
        };
        let mut counts = [0_u32; 4];
        for key in 0..1000 {
            assert_eq!(way(key), way(key));
            counts[usize::try_from(way(key)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
    }
}
