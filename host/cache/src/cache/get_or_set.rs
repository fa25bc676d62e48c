//! Get-or-set and get-or-refresh of a cache: look-ups that may return a vacancy, and its fill.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use bytes::Bytes;

use super::Cache;
use crate::answer_limit::AnswerLimit;
use crate::cache_metrics::Operation;
use crate::error::CacheError;
use crate::get_or_set::in_flight::{LeaderGuard, Owner};
use crate::get_or_set::lookup::{Attempt, Entry, Lookup};
use crate::get_or_set::refresh::{self, Freshness, Refreshed};
use crate::get_or_set::stats::RefreshCounters;
use crate::get_or_set::vacancy::Vacancy;
use crate::key::Key;
use crate::policy::Duration;
use crate::value::Value;

impl Cache {
    /// Returns the key's value, or a vacancy for the caller to compute it. While another caller holds the vacancy, in
    /// any process, the call waits; if it waits longer than [`Policy::wait`](crate::Policy::wait), it returns a vacancy
    /// too.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] if `owner` already holds the key's vacancy; the backend's. In an outage a call
    /// returns a vacancy if the policy's `on_outage` is [`OnOutage::Miss`](crate::OnOutage::Miss).
    pub async fn get_or_set(&self, key: &Key, owner: Owner) -> Result<Entry, CacheError> {
        self.get_or_set_within(key, owner, None).await
    }

    /// [`Cache::get_or_set`] within a limit on answers.
    pub(crate) async fn get_or_set_within(
        &self,
        key: &Key,
        owner: Owner,
        answers: Option<&Arc<AnswerLimit>>,
    ) -> Result<Entry, CacheError> {
        let mut lookup = Lookup::new(&self.state, key, owner, answers);
        match lookup.attempt().await? {
            Attempt::Done(entry) => Ok(entry),
            // Boxed, so that the future of a call that does not wait is small.
            Attempt::Wait(wait) => Box::pin(lookup.wait(wait)).await,
        }
    }

    /// Returns the key's value. If it expires within `stale`, exactly one caller across all processes also gets the right
    /// to refresh it, and no caller waits. Without a value, does the same as [`Cache::get_or_set`].
    ///
    /// After a refresh that failed, no caller tries for about a second.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_set`]; [`CacheError::InvalidArgument`] if `stale` is zero or unlimited.
    pub async fn get_or_refresh(&self, key: &Key, stale: Duration, owner: Owner) -> Result<Freshness, CacheError> {
        self.get_or_refresh_within(key, stale, owner, None).await
    }

    /// [`Cache::get_or_refresh`] within a limit on answers.
    pub(crate) async fn get_or_refresh_within(
        &self,
        key: &Key,
        stale: Duration,
        owner: Owner,
        answers: Option<&Arc<AnswerLimit>>,
    ) -> Result<Freshness, CacheError> {
        let stale = self.state.policy.resolve_stale(stale)?;
        if let Some(found) = refresh::look_up(&self.state, key, stale, owner, answers).await? {
            return Ok(found);
        }
        Ok(match Box::pin(self.get_or_set_within(key, owner, answers)).await? {
            Entry::Occupied(value) => Freshness::Fresh(value),
            Entry::Vacant(vacancy) => Freshness::Vacant(vacancy),
        })
    }

    /// Stores the computed value of a vacancy. Returns true if it was stored. It is not stored if anyone has set or
    /// cleared the key since the vacancy was claimed, or if the lease was lost.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`]. The vacancy is then released, as if it was dropped. In an outage the callers that still wait
    /// for the vacancy receive the value although it was not stored. A vacancy of another cache is released too, and is
    /// [`CacheError::InvalidArgument`].
    pub async fn fill(&self, vacancy: Vacancy, value: Bytes, duration: Duration) -> Result<bool, CacheError> {
        self.fill_value(vacancy, value, duration).await
    }

    /// [`Cache::fill`] for a value that [`Cache::get_or_refresh`] returns as stale in the last part of its life, which is
    /// `duration` and `stale` together.
    ///
    /// # Errors
    ///
    /// As [`Cache::fill`]; [`CacheError::InvalidArgument`] if `stale` is zero or unlimited.
    pub async fn fill_stale(
        &self,
        vacancy: Vacancy,
        value: Bytes,
        duration: Duration,
        stale: Duration,
    ) -> Result<bool, CacheError> {
        self.fill_stale_value(vacancy, value, duration, stale).await
    }

    /// [`Cache::fill`] with any kind of value.
    pub(crate) async fn fill_value(
        &self,
        vacancy: Vacancy,
        value: impl Value,
        duration: Duration,
    ) -> Result<bool, CacheError> {
        let duration = self.state.policy.check_store([value.as_ref()], duration);
        self.store_computed(&self.metrics().fill, vacancy, value, duration).await
    }

    /// [`Cache::fill_stale`] with any kind of value.
    pub(crate) async fn fill_stale_value(
        &self,
        vacancy: Vacancy,
        value: impl Value,
        duration: Duration,
        stale: Duration,
    ) -> Result<bool, CacheError> {
        let duration = self.state.policy.check_store_stale(value.as_ref(), duration, stale);
        self.store_computed(&self.metrics().fill_stale, vacancy, value, duration).await
    }

    /// Stores the value of a vacancy, for the duration that its check returned.
    async fn store_computed(
        &self,
        operation: &Operation,
        mut vacancy: Vacancy,
        value: impl Value,
        duration: Result<Option<StdDuration>, CacheError>,
    ) -> Result<bool, CacheError> {
        if !Arc::ptr_eq(&vacancy.state, &self.state) {
            return Err(CacheError::InvalidArgument("vacancy: it belongs to another cache".to_owned()));
        }
        self.state.counters.computed.increment();
        let (duration, value) = (duration?, value.into_bytes());
        if let Some(Refreshed { key, version }) = &vacancy.refreshed {
            let stored = self.state.backend.replace(key.clone(), Some(version), value, duration);
            let outcome = operation.timed(stored).await;
            if let Ok(is_stored) = outcome {
                let RefreshCounters { stored, superseded, .. } = &self.state.refreshes.counters;
                if is_stored { stored } else { superseded }.increment();
                drop(vacancy.take_guard());
            }
            return outcome;
        }
        // A caller that asks after this point may come after a clear of the value that is stored here.
        let sent = self.state.in_flight.now();
        let stored = self.state.backend.fill(vacancy.key.clone(), &vacancy.lease, value.clone(), duration);
        let outcome = operation.timed(stored).await;
        match &outcome {
            Ok(true) => {
                vacancy.forget_lease();
                vacancy.take_guard().iter().for_each(|guard| guard.deliver(&value, sent));
            }
            Ok(false) => {
                self.state.counters.superseded.increment();
                vacancy.forget_lease();
                vacancy.take_guard().iter().for_each(LeaderGuard::invalidate);
            }
            Err(error) if error.is_outage() => {
                vacancy.take_guard().iter().for_each(|guard| guard.deliver_unstored(&value, sent, vacancy.claimed));
            }
            Err(_) => {}
        }
        outcome
    }
}
