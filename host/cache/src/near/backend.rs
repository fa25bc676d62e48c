//! A backend with a near tier in front of it.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{
    BackendStatus, CacheBackend, ClearProgress, Health, KeyPage, KeyState, ListCursor, NearLookup, NearStatus, Release,
    Version, WithLife,
};
use crate::error::CacheError;
use crate::get_or_set::lease::{Claim, Lease};
use crate::key::{Key, KeyRef, Selection};
use crate::near::tier::{Begun, Fetched, Keep, Tier};
use crate::ram::sweep_at_intervals;

/// A backend that announces the changes of the keys that it has read. A tier without I/O is in front of it.
#[async_trait]
pub(crate) trait FarBackend: CacheBackend {
    /// [`CacheBackend::get`], with what is needed to keep the value.
    async fn fetch(&self, key: &Key) -> Result<Fetched, CacheError>;

    /// [`CacheBackend::get_many`], with what is needed to keep the values.
    async fn fetch_many(&self, keys: &[Key]) -> Result<Vec<Fetched>, CacheError>;

    /// [`CacheBackend::claim`], with what is needed to keep the value.
    async fn fetch_or_claim(&self, key: &Key, lease: &Lease) -> Result<(Claim, Option<Keep>), CacheError>;
}

/// A backend with a near tier in front of it.
#[derive(Debug)]
pub(crate) struct NearBackend<F> {
    far: F,
    tier: Arc<Tier>,
}

impl<F: FarBackend> NearBackend<F> {
    /// Puts a tier in front of a backend, whose feeds announce to this tier. On a Tokio runtime a task sweeps the tier
    /// until the backend is dropped.
    pub(crate) fn new(far: F, tier: Arc<Tier>) -> Self {
        sweep_at_intervals(&tier, Tier::sweep);
        Self { far, tier }
    }

    // Decision: docs/decisions/0108-a-batch-joins-the-fetches-of-other-calls.md
    /// Reads keys that were not near, in their order. A key that another call fetches, or that is repeated, is read once.
    async fn read_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let mut values = vec![None; keys.len()];
        let (mut own, mut fetches, mut joined) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in keys.iter().zip(&mut values) {
            match self.tier.begin(key) {
                Begun::Hit(found) => *value = Some(found),
                Begun::Join(join) => joined.push((key, value, join)),
                Begun::Fetch(fetch) => {
                    own.push(key.clone());
                    fetches.push((value, fetch));
                }
            }
        }
        if !own.is_empty() {
            // Before the others are waited for: other batches may wait for these.
            let fetched = self.far.fetch_many(&own).await?;
            for ((value, fetch), fetched) in fetches.into_iter().zip(fetched) {
                *value = fetched.value.clone();
                fetch.complete(&Ok(fetched));
            }
        }
        let (mut again, mut unread) = (Vec::new(), Vec::new());
        for (key, value, join) in joined {
            match join.reply().await {
                Some(Ok(found)) => *value = found,
                // As in a batch of its own.
                Some(Err(CacheError::WrongType)) => {}
                Some(Err(error)) => return Err(error),
                None => {
                    again.push(key.clone());
                    unread.push(value);
                }
            }
        }
        if !again.is_empty() {
            let found = self.far.get_many(&again).await?;
            for ((key, value), found) in again.iter().zip(unread).zip(found) {
                self.tier.observed(key.as_ref(), found.as_ref());
                *value = found;
            }
        }
        Ok(values)
    }

    /// A write of these keys. What is near is not served after it, and what is being fetched is not kept.
    fn write(&self, keys: Vec<Key>) -> Write<'_> {
        let write = Write { tier: &self.tier, keys };
        write.invalidate();
        write
    }
}

/// A write that was sent. The keys are invalidated before it, and again when it is over, also if it is given up.
#[derive(Debug)]
struct Write<'a> {
    tier: &'a Tier,
    keys: Vec<Key>,
}

impl Write<'_> {
    fn invalidate(&self) {
        self.keys.iter().for_each(|key| self.tier.invalidate(key.as_ref()));
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.invalidate();
    }
}

impl<F: FarBackend> NearLookup for NearBackend<F> {
    fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes> {
        self.tier.look_up(key)
    }

    fn last_known(&self, key: KeyRef<'_>) -> Option<Bytes> {
        self.tier.last_known(key)
    }

    fn look_up_fresh(&self, key: KeyRef<'_>, stale: StdDuration) -> Option<Bytes> {
        self.tier.look_up_fresh(key, stale)
    }

    fn count_hits(&self, hits: usize) {
        self.tier.count_hits(hits);
    }

    fn status(&self) -> NearStatus {
        self.tier.status()
    }
}

#[async_trait]
impl<F: FarBackend> CacheBackend for NearBackend<F> {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        match self.tier.begin(key) {
            Begun::Hit(value) => return Ok(Some(value)),
            Begun::Join(join) => {
                if let Some(reply) = join.reply().await {
                    return reply;
                }
            }
            Begun::Fetch(fetch) => {
                let fetched = self.far.fetch(key).await;
                fetch.complete(&fetched);
                return Ok(fetched?.value);
            }
        }
        // The call that was joined was given up. Joining another one could be endless.
        let value = self.far.get(key).await?;
        self.tier.observed(key.as_ref(), value.as_ref());
        Ok(value)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let mut values: Vec<Option<Bytes>> = keys.iter().map(|key| self.tier.look_up(key.as_ref())).collect();
        let far: Vec<Key> =
            keys.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(key, _)| key.clone()).collect();
        self.tier.count_hits(values.len().saturating_sub(far.len()));
        if far.is_empty() {
            return Ok(values);
        }
        let mut read = self.read_many(&far).await?.into_iter();
        for value in values.iter_mut().filter(|value| value.is_none()) {
            *value = read.next().flatten();
        }
        Ok(values)
    }

    async fn exists(&self, key: &Key) -> Result<bool, CacheError> {
        if self.tier.look_up(key.as_ref()).is_some() {
            self.tier.count_hits(1);
            return Ok(true);
        }
        let exists = self.far.exists(key).await;
        // An older value that is being fetched must not be kept: this call may have seen that it is gone.
        self.tier.invalidate(key.as_ref());
        exists
    }

    /// Of the server: an operator asks what others would find there.
    async fn describe(&self, key: &Key) -> Result<KeyState, CacheError> {
        self.far.describe(key).await
    }

    async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError> {
        self.far.list_keys(selection, cursor, max_keys).await
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        let _write = self.write(vec![key.clone()]);
        self.far.set(key, value, duration).await
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        let _write = self.write(entries.iter().map(|(key, _)| key.clone()).collect());
        self.far.set_many(entries, duration).await
    }

    async fn increment(&self, key: Key, delta: i64, duration: Option<StdDuration>) -> Result<i64, CacheError> {
        let _write = self.write(vec![key.clone()]);
        self.far.increment(key, delta, duration).await
    }

    async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError> {
        let _write = self.write(keys.clone());
        self.far.clear_many(keys).await
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        let _write = self.write(vec![key.clone()]);
        self.far.clear(key).await
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.clear_matching_with(selection, &ClearProgress::default()).await
    }

    async fn clear_matching_with(&self, selection: &Selection, progress: &ClearProgress) -> Result<u64, CacheError> {
        let cleared = self.far.clear_matching_with(selection, progress).await;
        // Also after an error: some keys may be removed.
        self.tier.invalidate_selected(selection).await;
        cleared
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        if key.is_of_refresh() {
            // It never has a value.
            return self.far.claim(key, lease).await;
        }
        let fetch = match self.tier.begin(key) {
            Begun::Hit(value) => return Ok(Claim::Value(value)),
            Begun::Join(join) => {
                if let Some(Ok(Some(value))) = join.reply().await {
                    return Ok(Claim::Value(value));
                }
                self.tier.begin_alone(key)
            }
            Begun::Fetch(fetch) => Some(fetch),
        };
        let claimed = self.far.fetch_or_claim(key, lease).await;
        match fetch {
            Some(fetch) => fetch.complete(&as_fetched(&claimed)),
            None => {
                let read = as_fetched(&claimed).ok().and_then(|fetched| fetched.value);
                self.tier.observed(key.as_ref(), read.as_ref());
            }
        }
        Ok(claimed?.0)
    }

    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError> {
        self.far.changed(key, lease).await
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let _write = self.write(vec![key.clone()]);
        self.far.fill(key, lease, value, duration).await
    }

    async fn get_with_life(&self, key: &Key) -> Result<Option<WithLife>, CacheError> {
        if let Some(found) = self.tier.look_up_with_life(key.as_ref()) {
            self.tier.count_hits(1);
            return Ok(Some(found));
        }
        match self.tier.begin(key) {
            Begun::Hit(_) => {}
            Begun::Join(join) => match join.reply().await {
                Some(Ok(Some(_))) | None => {}
                Some(Ok(None)) => return Ok(None),
                Some(Err(error)) => return Err(error),
            },
            Begun::Fetch(fetch) => {
                let fetched = self.far.fetch(key).await;
                let keep = fetched.as_ref().ok().and_then(|fetched| fetched.keep);
                fetch.complete(&fetched);
                let Some(value) = fetched?.value else { return Ok(None) };
                if let Some(Keep { life, .. }) = keep {
                    let life = life.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
                    return Ok(Some(WithLife { value, life }));
                }
            }
        }
        // Another call may have brought the value near. Otherwise its life is not known.
        if let Some(found) = self.tier.look_up_with_life(key.as_ref()) {
            return Ok(Some(found));
        }
        let found = self.far.get_with_life(key).await?;
        self.tier.observed(key.as_ref(), found.as_ref().map(|found| &found.value));
        Ok(found)
    }

    async fn get_version(&self, key: &Key) -> Result<Option<(WithLife, Version)>, CacheError> {
        let found = self.far.get_version(key).await?;
        self.tier.observed(key.as_ref(), found.as_ref().map(|(found, _)| &found.value));
        Ok(found)
    }

    async fn replace(
        &self,
        key: Key,
        version: Option<&Version>,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let _write = self.write(vec![key.clone()]);
        self.far.replace(key, version, value, duration).await
    }

    fn lease_time(&self) -> Option<StdDuration> {
        self.far.lease_time()
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        self.far.renew(key, lease).await
    }

    fn release(&self, key: &Key, lease: &Lease) -> Release {
        self.far.release(key, lease)
    }

    async fn check(&self) -> Result<Health, CacheError> {
        self.far.check().await
    }

    fn status(&self) -> BackendStatus {
        self.far.status()
    }

    fn near(&self) -> Option<&dyn NearLookup> {
        Some(self)
    }
}

/// What a claim has read. Without a value nothing is kept.
fn as_fetched(claimed: &Result<(Claim, Option<Keep>), CacheError>) -> Result<Fetched, CacheError> {
    match claimed {
        Ok((Claim::Value(value), keep)) => Ok(Fetched { value: Some(value.clone()), keep: *keep }),
        Ok((Claim::Granted | Claim::Leased(_), _)) => Ok(Fetched { value: None, keep: None }),
        Err(error) => Err(error.clone()),
    }
}

#[cfg(test)]
mod tests;
