//! Instances that answer many requests, one after the other: the idle ones of each plugin.

// Decision: docs/decisions/0075-an-instance-answers-requests-one-after-the-other.md

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::instance_metrics::{EndReason, InstanceMetrics};
use super::places::Places;
use crate::config::Reuse;
use crate::plugin_state::PluginState;
use crate::sandbox::Room;

/// An instance of a plugin.
pub(super) struct Instance {
    pub(super) store: Store<PluginState>,
    /// `None` until the first request has instantiated the component.
    pub(super) proxy: Option<Proxy>,
    /// `None` if the plugin has no `reuse`: the instance answers one request.
    pub(super) record: Option<Record>,
    // Behind the store: the place is free once the store is dropped.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

/// The record of an instance that may answer many requests. Counts its end when it is dropped.
pub(super) struct Record {
    created: Instant,
    answered: usize,
    /// What the instance could still take after its first request.
    first: Option<Room>,
    metrics: Arc<InstanceMetrics>,
    end: EndReason,
}

/// The idle instances of one version of a plugin.
pub(super) struct Instances {
    reuse: Reuse,
    places: Arc<Places>,
    metrics: Arc<InstanceMetrics>,
    idle: Mutex<IdleList>,
}

#[derive(Default)]
struct IdleList {
    /// In the order in which they became idle. The last one is taken first, so that the others are idle for long enough
    /// to be ended.
    instances: VecDeque<Idle>,
    /// True once the plugin is reloaded or the host shuts down: no instance becomes idle any more.
    is_closed: bool,
    /// True while a task waits for the first one to be idle for too long.
    is_swept: bool,
}

struct Idle {
    instance: Instance,
    since: Instant,
}

/// What a look at the idle instance that is first in the list has found.
enum First {
    Expired(Instance),
    ExpiresAt(Instant),
    Absent,
}

impl Instance {
    /// Ends the instance for this reason.
    fn end(mut self, reason: EndReason) {
        if let Some(record) = &mut self.record {
            record.end = reason;
        }
    }

    /// Ends the request that the instance has answered. Returns the reason if it may not answer another one.
    fn end_request(&mut self, reuse: &Reuse, now: Instant) -> Option<EndReason> {
        let Some(record) = &mut self.record else { return Some(EndReason::Stopped) };
        let Some(room) = self.store.data_mut().end_request() else { return Some(EndReason::Open) };
        record.answered = record.answered.saturating_add(1);
        if record.answered >= reuse.requests {
            Some(EndReason::Requests)
        } else if record.is_too_old(reuse, now) {
            Some(EndReason::MaxAge)
        } else if room.is_small_beside(record.first.get_or_insert(room)) {
            Some(EndReason::Full)
        } else {
            None
        }
    }
}

impl Record {
    fn is_too_old(&self, reuse: &Reuse, now: Instant) -> bool {
        now.saturating_duration_since(self.created) >= reuse.max_age
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.ended(self.end).increment(1);
    }
}

impl Instances {
    pub(super) fn new(plugin: &str, reuse: Reuse, places: Arc<Places>) -> Arc<Self> {
        let metrics = Arc::new(InstanceMetrics::new(plugin));
        Arc::new(Self { reuse, places, metrics, idle: Mutex::default() })
    }

    /// The record of a new instance.
    pub(super) fn record(&self) -> Record {
        self.metrics.created.increment(1);
        let metrics = Arc::clone(&self.metrics);
        Record { created: Instant::now(), answered: 0, first: None, metrics, end: EndReason::Stopped }
    }

    fn lock(&self) -> MutexGuard<'_, IdleList> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the instance that became idle last.
    pub(super) async fn take(&self) -> Option<Instance> {
        loop {
            let Idle { mut instance, .. } = self.lock().instances.pop_back()?;
            self.metrics.idle.decrement(1);
            let record = instance.record.as_ref()?;
            if !record.is_too_old(&self.reuse, Instant::now()) {
                self.metrics.reused.increment(1);
                // It has passed while the instance was idle.
                instance.store.set_epoch_deadline(1);
                return Some(instance);
            }
            instance.end(EndReason::MaxAge);
            // There may be many, and each takes a moment.
            tokio::task::yield_now().await;
        }
    }

    /// Takes an instance back whose call has returned. It is idle until its next request, or ends.
    pub(super) fn give_back(self: &Arc<Self>, mut instance: Instance) {
        let now = Instant::now();
        let mut end = instance.end_request(&self.reuse, now);
        let mut idle = self.lock();
        // Read under the lock: a request that wants a place has said so before it looks for idle instances.
        if end.is_none() {
            end = match (idle.is_closed || self.places.are_closed(), self.places.are_wanted()) {
                (true, _) => Some(EndReason::Closed),
                (false, true) => Some(EndReason::Displaced),
                (false, false) => None,
            };
        }
        if let Some(reason) = end {
            drop(idle);
            return instance.end(reason);
        }
        idle.instances.push_back(Idle { instance, since: now });
        self.metrics.idle.increment(1);
        let is_swept = std::mem::replace(&mut idle.is_swept, true);
        drop(idle);
        if !is_swept {
            self.sweep_from(self.expiry(now));
        }
    }

    fn expiry(&self, since: Instant) -> Instant {
        since.checked_add(self.reuse.idle).unwrap_or(since)
    }

    /// Ends instances that have been idle for too long, from this time on until none is idle. One task for all.
    fn sweep_from(self: &Arc<Self>, mut next: Instant) {
        let instances = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep_until(next).await;
                // While it sleeps it does not keep the plugin.
                let Some(instances) = instances.upgrade() else { return };
                next = loop {
                    match instances.look_at_first(Instant::now()) {
                        First::Expired(instance) => instance.end(EndReason::Idle),
                        First::ExpiresAt(next) => break next,
                        First::Absent => return,
                    }
                    tokio::task::yield_now().await;
                };
            }
        });
    }

    /// Removes the first instance if it has been idle for too long.
    fn look_at_first(&self, now: Instant) -> First {
        let mut idle = self.lock();
        let Some(expiry) = idle.instances.front().map(|first| self.expiry(first.since)) else {
            idle.is_swept = false;
            return First::Absent;
        };
        if expiry > now {
            return First::ExpiresAt(expiry);
        }
        match self.pop_first(idle) {
            Some(instance) => First::Expired(instance),
            None => First::Absent,
        }
    }

    fn pop_first(&self, mut idle: MutexGuard<'_, IdleList>) -> Option<Instance> {
        let Idle { instance, .. } = idle.instances.pop_front()?;
        self.metrics.idle.decrement(1);
        Some(instance)
    }

    /// Since when the instance that is first in the list is idle.
    pub(super) fn first_idle_since(&self) -> Option<Instant> {
        self.lock().instances.front().map(|first| first.since)
    }

    /// Ends the instance that has been idle for longest. Returns false if none is idle.
    pub(super) fn displace_first(&self) -> bool {
        let first = self.pop_first(self.lock());
        first.map(|instance| instance.end(EndReason::Displaced)).is_some()
    }

    /// Ends all idle instances; those in use end with their requests. Takes a moment for each.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        while let Some(instance) = self.pop_first(self.lock()) {
            instance.end(EndReason::Closed);
        }
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        self.close();
    }
}
