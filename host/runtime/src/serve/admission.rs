//! Admission of requests: how many may run, in all and for each plugin.
//!
//! A plugin cannot take all requests: for each of the others a few are reserved.

// Decision: docs/decisions/0064-each-plugin-has-requests-that-no-other-can-take.md

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error_response::ErrorResponse;

/// The requests that may run, over all plugins.
#[derive(Debug)]
pub(super) struct Admission {
    /// One permit for each request that no plugin has reserved.
    shared: Arc<Semaphore>,
    /// The number of requests that are reserved for each plugin.
    reserved: usize,
    running: TaskTracker,
}

/// The requests of one plugin.
#[derive(Debug)]
pub(super) struct PluginAdmission {
    /// One permit for each request that the plugin may run; `None` if it has no maximum of its own.
    own: Option<Arc<Semaphore>>,
    /// One permit for each request that only this plugin can run.
    reserved: Arc<Semaphore>,
}

/// An admitted request. It counts until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    _own: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
    // The last field: shutdown waits for it, and may then expect all permits to be back.
    _running: TaskTrackerToken,
}

/// A quarter of all requests is divided among the plugins, and each of them keeps its part for itself.
const RESERVED_SHARE: usize = 4;

impl Admission {
    /// Admits `max` requests at a time, for this number of plugins.
    pub(super) fn new(max: usize, plugins: usize) -> Self {
        let reserved = match plugins {
            0 | 1 => 0,
            _ => {
                let part = |of: usize| of.checked_div(plugins).unwrap_or(0);
                // At least one each, if there are enough for that.
                part(max / RESERVED_SHARE).max(1).min(part(max))
            }
        };
        let shared = Semaphore::new(max.saturating_sub(reserved.saturating_mul(plugins)));
        Self { shared: Arc::new(shared), reserved, running: TaskTracker::new() }
    }

    /// The admission of one plugin, with its `max_concurrent_requests`.
    pub(super) fn plugin(&self, max: Option<usize>) -> PluginAdmission {
        PluginAdmission {
            own: max.map(|max| Arc::new(Semaphore::new(max))),
            reserved: Arc::new(Semaphore::new(self.reserved)),
        }
    }

    /// Admits a request of the plugin.
    ///
    /// # Errors
    ///
    /// [`ErrorResponse::PluginBusy`] if the plugin runs as many requests as it may, and [`ErrorResponse::Busy`] if the
    /// host does.
    pub(super) fn admit(&self, plugin: &PluginAdmission) -> Result<Admitted, ErrorResponse> {
        let take = |permits: &Arc<Semaphore>| Arc::clone(permits).try_acquire_owned();
        let own = plugin.own.as_ref().map(take).transpose().map_err(|_| ErrorResponse::PluginBusy)?;
        let slot = take(&plugin.reserved).or_else(|_| take(&self.shared)).map_err(|_| ErrorResponse::Busy)?;
        Ok(Admitted { _own: own, _slot: slot, _running: self.running.token() })
    }

    /// Counts a task that shutdown waits for as for a request, until the token is dropped.
    pub(super) fn track(&self) -> TaskTrackerToken {
        self.running.token()
    }

    /// Waits until no admitted request is left.
    pub(super) async fn until_idle(&self) {
        self.running.close();
        self.running.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit_all(admission: &Admission, plugin: &PluginAdmission) -> Vec<Admitted> {
        std::iter::from_fn(|| admission.admit(plugin).ok()).collect()
    }

    #[test]
    fn one_plugin_alone_may_run_all_requests() {
        let admission = Admission::new(256, 1);
        let plugin = admission.plugin(None);
        assert_eq!(admit_all(&admission, &plugin).len(), 256);
    }

    #[test]
    fn a_plugin_leaves_room_for_each_of_the_others() {
        for (max, plugins, alone) in [(256, 2, 224), (256, 4, 208), (3, 3, 1), (2, 3, 2), (5, 3, 3)] {
            let admission = Admission::new(max, plugins);
            let each: Vec<_> = (0..plugins).map(|_| admission.plugin(None)).collect();
            let first = admit_all(&admission, &each[0]);
            assert_eq!(first.len(), alone, "{max} requests of {plugins} plugins");
            let others: Vec<_> = each[1..].iter().map(|plugin| admit_all(&admission, plugin)).collect();
            let all = first.len() + others.iter().map(Vec::len).sum::<usize>();
            assert_eq!(all, max, "no request is lost");
        }
    }

    #[test]
    fn a_plugin_runs_no_more_than_its_own_maximum() {
        let admission = Admission::new(10, 2);
        let (few, other) = (admission.plugin(Some(2)), admission.plugin(Some(100)));
        let mut running = admit_all(&admission, &few);
        assert_eq!(running.len(), 2);
        assert_eq!(admission.admit(&few).unwrap_err(), ErrorResponse::PluginBusy);
        running.pop();
        assert!(admission.admit(&few).is_ok());
        let others = admit_all(&admission, &other);
        assert_eq!(others.len(), 9, "all but the one that runs");
        assert_eq!(admission.admit(&other).unwrap_err(), ErrorResponse::Busy);
    }

    #[tokio::test]
    async fn the_host_is_idle_once_each_admitted_request_is_dropped() {
        let admission = Admission::new(2, 1);
        let plugin = admission.plugin(None);
        let running = admission.admit(&plugin).unwrap();
        let mut idle = std::pin::pin!(admission.until_idle());
        assert!(futures_once(idle.as_mut()).await.is_none());
        drop(running);
        idle.await;
    }

    async fn futures_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
