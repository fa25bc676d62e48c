//! One configured cache: a backend, and what is the same for all of them.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache_metrics::CacheMetrics;
use crate::get_or_set::in_flight::{Leads, Owner, Seat};
use crate::get_or_set::lookup::{Asking, Entry, Step};
use crate::get_or_set::vacancy::{Shared, Vacancy};
use crate::{CacheBackend, CacheError, Duration, GetOrSetStats, Health, Key, OnOutage, Policy, Selection, SyncBackend};

/// One configured cache.
#[derive(Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

impl Cache {
    /// A cache by the operator's name.
    pub fn new(name: impl Into<String>, backend: Arc<dyn CacheBackend>, policy: Policy) -> Self {
        Self { shared: Arc::new(Shared::new(name.into(), backend, policy)) }
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The key's value, or `None` on a miss.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        self.or_miss(self.metrics().get.timed(self.shared.backend.get(key)).await, || None)
    }

    /// The values of many keys, in their order, in one round trip.
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.metrics().get_many.timed(self.shared.backend.get_many(keys)).await;
        let values = self.or_miss(found, || vec![None; keys.len()])?;
        self.check_batch(&values)?;
        Ok(values)
    }

    /// Refuses the values of a batch that are too many bytes together; counts the keys of one that is not refused.
    pub(super) fn check_batch(&self, values: &[Option<Bytes>]) -> Result<(), CacheError> {
        self.shared.policy.check_batch(values)?;
        self.metrics().count_keys(values);
        Ok(())
    }

    /// Stores a value.
    pub async fn set(&self, key: Key, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        let duration = self.shared.policy.resolve(duration)?;
        self.shared.policy.check_value(&value)?;
        let overtaken = self.shared.flights.leads_of([&key]);
        let outcome = self.metrics().set.timed(self.shared.backend.set(key, value, duration)).await;
        self.overtake(overtaken, outcome)
    }

    /// [`Cache::set`] on its own backend, which answers at once.
    pub(super) fn set_at_once(
        &self,
        backend: &dyn SyncBackend,
        key: Key,
        value: Bytes,
        duration: Duration,
    ) -> Result<(), CacheError> {
        let duration = self.shared.policy.resolve(duration)?;
        self.shared.policy.check_value(&value)?;
        let overtaken = self.shared.flights.leads_of([&key]);
        self.metrics().set.timed_at_once(|| backend.store(key, value, duration));
        self.overtake(overtaken, Ok(()))
    }

    /// Stores many values for one duration, in one round trip.
    pub async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Duration) -> Result<(), CacheError> {
        let duration = self.shared.policy.resolve(duration)?;
        entries.iter().try_for_each(|(_, value)| self.shared.policy.check_value(value))?;
        if entries.is_empty() {
            return Ok(());
        }
        let overtaken = self.shared.flights.leads_of(entries.iter().map(|(key, _)| key));
        let outcome = self.metrics().set_many.timed(self.shared.backend.set_many(entries, duration)).await;
        self.overtake(overtaken, outcome)
    }

    /// The key's value, or the vacancy to compute it. While a vacancy is out, here or in another process, other callers
    /// wait here; one whose wait runs out gets a vacancy too.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] where `owner` holds the key's vacancy itself.
    pub async fn get_or_set(&self, key: &Key, owner: Owner) -> Result<Entry, CacheError> {
        let mut asking = Asking::new(&self.shared, key, owner);
        match asking.ask().await? {
            Step::Done(entry) => Ok(entry),
            // In a box, so that the future of a call that need not wait is small.
            Step::Wait(wait) => Box::pin(asking.wait(wait)).await,
        }
    }

    /// Stores what a vacancy's holder computed, and says whether it did: not when the key was cleared or set since, by
    /// anyone, or when the lease was lost.
    ///
    /// # Errors
    ///
    /// On a value or duration that breaks a rule, and on a server's refusal, the vacancy is passed on as if it had been
    /// dropped; so is one that another cache handed out, which is [`CacheError::InvalidArgument`]. During an outage
    /// those who still wait for it receive the value all the same: it is as good for them as for its maker.
    pub async fn fill(&self, mut vacancy: Vacancy, value: Bytes, duration: Duration) -> Result<bool, CacheError> {
        if !Arc::ptr_eq(&vacancy.shared, &self.shared) {
            return Err(CacheError::InvalidArgument("vacancy: another cache handed it out".to_owned()));
        }
        self.shared.counters.computed.add();
        let duration = self.shared.policy.resolve(duration)?;
        self.shared.policy.check_value(&value)?;
        // Who asks from now on cannot tell whether the value was cleared again by the time he did.
        let sent = self.shared.flights.now();
        let stored = self.shared.backend.fill(vacancy.key.clone(), &vacancy.lease, value.clone(), duration);
        let outcome = self.metrics().fill.timed(stored).await;
        match &outcome {
            Ok(true) => {
                vacancy.disown();
                vacancy.take_seat().iter().for_each(|seat| seat.serve(&value, sent));
            }
            Ok(false) => {
                self.shared.counters.superseded.add();
                vacancy.disown();
                vacancy.take_seat().iter().for_each(Seat::give_up);
            }
            Err(error) if error.is_outage() => {
                vacancy.take_seat().iter().for_each(|seat| seat.share(&value, sent, vacancy.asked));
            }
            Err(_) => {}
        }
        outcome
    }

    /// Removes one key and says whether it held a value.
    pub async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        let overtaken = self.shared.flights.leads_of([key]);
        let outcome = self.metrics().clear.timed(self.shared.backend.clear(key)).await;
        self.overtake(overtaken, outcome)
    }

    /// Removes the selected keys and says how many.
    pub async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        let overtaken = self.shared.flights.leads_in(selection).await;
        let operation = if selection.is_all() { &self.metrics().clear_all } else { &self.metrics().clear_pattern };
        let outcome = operation.timed(self.shared.backend.clear_matching(selection)).await;
        self.overtake(overtaken, outcome)
    }

    /// Tells the recorder of the [metrics](crate::metrics) how the cache stands.
    pub fn publish(&self) {
        self.metrics().publish(&self.shared.backend.status(), &self.stats());
    }

    /// Whether reads are answered as misses while the server is out of reach.
    pub fn degrades(&self) -> bool {
        self.shared.policy.on_outage == OnOutage::Miss
    }

    /// The backend, where it answers at once.
    pub(super) fn as_sync(&self) -> Option<&dyn SyncBackend> {
        self.shared.backend.as_sync()
    }

    pub(super) fn metrics(&self) -> &CacheMetrics {
        &self.shared.metrics
    }

    /// What get-or-set has done here so far.
    pub fn stats(&self) -> GetOrSetStats {
        self.shared.counters.read()
    }

    /// Ends when the leases of dropped vacancies have been given back, or could not be. A program that ends earlier
    /// leaves them to lapse, and whoever waits for them in another process waits for that.
    pub async fn drain(&self) {
        self.shared.releases.wait().await;
    }

    /// Reaches what stands behind the cache and says what it is.
    pub async fn check(&self) -> Result<Health, CacheError> {
        self.shared.backend.check().await
    }

    /// After a set or clear those who waited for what it overtook ask again. Also after one that failed: it may have
    /// happened.
    fn overtake<T>(&self, overtaken: Leads, outcome: Result<T, CacheError>) -> Result<T, CacheError> {
        if outcome.is_ok() {
            self.shared.flights.note_write();
        }
        self.shared.flights.overtake(overtaken);
        outcome
    }

    /// Reads degrade: a miss for an outage, where the operator chose so.
    fn or_miss<T>(&self, outcome: Result<T, CacheError>, miss: impl FnOnce() -> T) -> Result<T, CacheError> {
        outcome.or_else(|error| if self.shared.is_miss(&error) { Ok(miss()) } else { Err(error) })
    }
}
