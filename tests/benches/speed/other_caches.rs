//! The caches that Larder is compared with, used directly. Their capacity is the total size of keys and values in
//! bytes.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;

/// quick_cache, which the RAM backend is built on.
pub(crate) struct QuickCache(quick_cache::sync::Cache<Box<str>, Bytes, ByBytes>);

/// moka.
pub(crate) struct Moka(moka::sync::Cache<Arc<str>, Bytes>);

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<str>, Bytes> for ByBytes {
    fn weight(&self, key: &Box<str>, value: &Bytes) -> u64 {
        (key.len() + value.len()) as u64
    }
}

impl QuickCache {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let estimated_items = usize::try_from(max_bytes / 1024).unwrap();
        Self(quick_cache::sync::Cache::with_weighter(estimated_items, max_bytes, ByBytes))
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.0.get(key)
    }

    pub(crate) fn set(&self, key: &str, value: Bytes) {
        self.0.insert(key.into(), value);
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Box<str>> {
        self.0.iter().map(|(key, _)| key)
    }
}

impl Moka {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let weight = |key: &Arc<str>, value: &Bytes| u32::try_from(key.len() + value.len()).unwrap();
        Self(moka::sync::Cache::builder().max_capacity(max_bytes).weigher(weight).build())
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.0.get(key)
    }

    pub(crate) fn set(&self, key: &str, value: Bytes) {
        self.0.insert(key.into(), value);
    }
}
