//! A RAM cache that a test puts out of reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use larder_host::cache::ram::RamBackend;
use larder_host::cache::{
    CacheBackend, CacheError, Claim, Health, Key, KeyPage, Lease, ListCursor, Policy, Release, Selection, Version,
    WithLife,
};

/// A RAM cache that can be out of reach, as a server can.
#[derive(Debug)]
pub(super) struct Reachable {
    ram: Arc<RamBackend>,
    pub(super) is_out: AtomicBool,
}

impl Reachable {
    pub(super) fn new(policy: &Policy) -> Self {
        Self { ram: RamBackend::new(1 << 20, policy.max_value_bytes, &[]), is_out: AtomicBool::new(false) }
    }

    fn check(&self) -> Result<(), CacheError> {
        match self.is_out.load(Ordering::Relaxed) {
            true => Err(CacheError::Unavailable("the test says so".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl CacheBackend for Reachable {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        self.check()?;
        self.ram.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        self.check()?;
        self.ram.get_many(keys).await
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.check()?;
        self.ram.set(key, value, duration).await
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.check()?;
        self.ram.set_many(entries, duration).await
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        self.check()?;
        self.ram.clear(key).await
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.check()?;
        self.ram.clear_matching(selection).await
    }

    async fn exists(&self, key: &Key) -> Result<bool, CacheError> {
        self.check()?;
        self.ram.exists(key).await
    }

    async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError> {
        self.check()?;
        self.ram.list_keys(selection, cursor, max_keys).await
    }

    async fn increment(&self, key: Key, delta: i64, duration: Option<StdDuration>) -> Result<i64, CacheError> {
        self.check()?;
        self.ram.increment(key, delta, duration).await
    }

    async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError> {
        self.check()?;
        self.ram.clear_many(keys).await
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        self.check()?;
        self.ram.claim(key, lease).await
    }

    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError> {
        self.ram.changed(key, lease).await
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        self.check()?;
        self.ram.fill(key, lease, value, duration).await
    }

    async fn get_with_life(&self, key: &Key) -> Result<Option<WithLife>, CacheError> {
        self.check()?;
        self.ram.get_with_life(key).await
    }

    async fn get_version(&self, key: &Key) -> Result<Option<(WithLife, Version)>, CacheError> {
        self.check()?;
        self.ram.get_version(key).await
    }

    async fn replace(
        &self,
        key: Key,
        version: Option<&Version>,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        self.check()?;
        self.ram.replace(key, version, value, duration).await
    }

    fn lease_time(&self) -> Option<StdDuration> {
        None
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        self.ram.renew(key, lease).await
    }

    /// Also during an outage: the release is sent when the server returns.
    fn release(&self, key: &Key, lease: &Lease) -> Release {
        self.ram.release(key, lease)
    }

    async fn check(&self) -> Result<Health, CacheError> {
        self.ram.check().await
    }
}
