//! The weight of entries, which a RAM cache limits.

use crate::key::{Key, Namespace};

/// The memory cost of an entry beside its key and value, in bytes: the slot, two reference counts, its part of the map,
/// and the rounding of the allocator.
pub const ENTRY_OVERHEAD: u64 = 192;

/// The part of a shard that one entry may fill. quick_cache silently drops an entry over 97 %.
const MAX_SHARD_PART: f64 = 0.9;

/// The weight of an entry in bytes, by the lengths of its key, namespace included, and of its value.
pub(super) fn weight(key: usize, value: usize) -> u64 {
    ENTRY_OVERHEAD.saturating_add(key as u64).saturating_add(value as u64)
}

/// The least `max_bytes` of a cache that must store values of `max_value_bytes`, in bytes.
pub fn least_capacity(max_value_bytes: usize) -> u64 {
    let key = Key::MAX_LENGTH.saturating_add(Namespace::MAX_LENGTH).saturating_add(1);
    (weight(key, max_value_bytes) as f64 / MAX_SHARD_PART).ceil() as u64
}
