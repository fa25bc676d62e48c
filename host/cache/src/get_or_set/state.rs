//! The state of one cache, shared with its vacancies.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::answer_limit::{AnswerLimit, Reserved};
use crate::backend::CacheBackend;
use crate::cache_metrics::CacheMetrics;
use crate::error::CacheError;
use crate::get_or_set::in_flight::InFlight;
use crate::get_or_set::lease::Issuer;
use crate::get_or_set::refresh::Refreshes;
use crate::get_or_set::renewal::Renewals;
use crate::get_or_set::stats::Counters;
use crate::policy::{OnOutage, Policy};

/// The state of one cache, shared with its vacancies.
#[derive(Debug)]
pub(crate) struct CacheState {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) backend: Arc<dyn CacheBackend>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) counters: Counters,
    pub(crate) refreshes: Refreshes,
    pub(crate) metrics: CacheMetrics,
    pub(crate) issuer: Issuer,
    pub(crate) renewals: Renewals,
    /// The pending releases of leases.
    pub(crate) releases: TaskTracker,
}

impl CacheState {
    pub(crate) fn new(name: String, backend: Arc<dyn CacheBackend>, policy: Policy) -> Self {
        let releases = TaskTracker::new();
        // `TaskTracker::wait` completes only on a closed tracker, which still accepts tasks.
        releases.close();
        let (in_flight, counters, renewals) = (Arc::default(), Counters::default(), Renewals::default());
        let metrics = CacheMetrics::new(&name, backend.status().backend());
        let (refreshes, issuer) = (Refreshes::default(), Issuer::new());
        Self { name, policy, backend, in_flight, counters, refreshes, metrics, issuer, renewals, releases }
    }

    /// Waits for room for an answer of at most `bytes`. Without a limit, and from a backend in this process, which answers at
    /// once, an answer needs none.
    pub(crate) async fn reserve(&self, answers: Option<&Arc<AnswerLimit>>, bytes: usize) -> Reserved {
        match answers.filter(|_| self.backend.as_sync().is_none()) {
            Some(answers) => answers.reserve(bytes).await,
            None => Reserved::default(),
        }
    }

    /// True if a read returns a miss instead of this error. Counts and logs it.
    pub(crate) fn degrades_to_miss(&self, error: &CacheError) -> bool {
        let is_miss = error.is_outage() && self.policy.on_outage == OnOutage::Miss;
        if is_miss {
            self.metrics.degraded.increment(1);
            tracing::debug!(cache = self.name, "a miss instead of an error: {error}");
        }
        is_miss
    }
}
