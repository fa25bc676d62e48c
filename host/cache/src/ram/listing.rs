//! Pages of the keys of a RAM cache.
//!
//! Keys are listed in the order of a hash, of which a cursor is one value. So a cursor takes no memory, and stays valid
//! however the cache changes. A page costs a visit of all entries of the partition.

// Decision: docs/decisions/0092-a-ram-cache-lists-its-keys-in-the-order-of-a-hash.md

use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};

use crate::backend::{KeyPage, ListCursor};
use crate::key::Selection;
use crate::ram::clock::Clock;
use crate::ram::partition::Partition;

/// The maximum length of the names on a page together, in bytes.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// The number of entries to visit before yielding to other tasks: about 0.1 ms.
const ENTRIES_PER_TURN: usize = 1024;

/// The keys of a page that is collected: those with the smallest hashes of the keys seen so far.
#[derive(Debug, Default)]
struct Smallest {
    keys: BinaryHeap<(u64, String)>,
    bytes: usize,
    /// The keys with this hash or a greater one are not on the page.
    end: Option<u64>,
}

impl Smallest {
    /// True if a key with this hash would be on the page.
    fn takes(&self, hash: u64) -> bool {
        self.end.is_none_or(|end| hash < end)
    }

    /// Adds a key, and removes others if they are too many then. Keys of one hash are on one page.
    fn add(&mut self, hash: u64, key: &str, max_keys: usize) {
        self.bytes = self.bytes.saturating_add(key.len());
        self.keys.push((hash, key.to_owned()));
        while self.keys.len() > max_keys || self.bytes > MAX_PAGE_BYTES || !self.greatest_is_taken() {
            let Some((hash, key)) = self.keys.pop() else { return };
            self.bytes = self.bytes.saturating_sub(key.len());
            self.end = Some(hash);
        }
    }

    fn greatest_is_taken(&self) -> bool {
        self.keys.peek().is_none_or(|(hash, _)| self.takes(*hash))
    }
}

/// The page of the selected keys of a partition that begins at a cursor.
pub(super) async fn page(
    partition: &Partition,
    clock: &Clock,
    order: &RandomState,
    selection: &Selection,
    cursor: Option<ListCursor>,
    max_keys: usize,
) -> KeyPage {
    let begin = cursor.map_or(0, ListCursor::number);
    let mut page = Smallest::default();
    for (index, (key, stored)) in partition.entries.iter().enumerate() {
        if index % ENTRIES_PER_TURN == ENTRIES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        let hash = order.hash_one(key.as_str()).max(1);
        if hash >= begin
            && page.takes(hash)
            && let Some(name) = selection.name_of(key.as_str())
            && clock.is_before(stored.expires_at)
        {
            page.add(hash, name, max_keys.max(1));
        }
    }
    KeyPage { keys: page.keys.into_iter().map(|(_, key)| key).collect(), next: page.end.and_then(ListCursor::new) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_smallest_hashes_and_ends_at_the_next_one() {
        let mut page = Smallest::default();
        for hash in [5, 3, 9, 1, 7] {
            if page.takes(hash) {
                page.add(hash, "k", 2);
            }
        }
        let mut hashes: Vec<u64> = page.keys.iter().map(|(hash, _)| *hash).collect();
        hashes.sort_unstable();
        assert_eq!((hashes, page.end, page.bytes), (vec![1, 3], Some(5), 2));
    }

    #[test]
    fn keys_of_one_hash_are_not_split() {
        let mut page = Smallest::default();
        for (hash, key) in [(1, "a"), (2, "b"), (2, "c"), (2, "d")] {
            if page.takes(hash) {
                page.add(hash, key, 2);
            }
        }
        assert_eq!((page.keys.into_vec(), page.end), (vec![(1, "a".to_owned())], Some(2)));
    }

    #[test]
    fn long_names_end_a_page_early() {
        let mut page = Smallest::default();
        let name = "k".repeat(MAX_PAGE_BYTES / 2);
        for hash in 1..=3 {
            page.add(hash, &name, 1000);
        }
        assert_eq!((page.keys.len(), page.end), (2, Some(3)));
    }
}
