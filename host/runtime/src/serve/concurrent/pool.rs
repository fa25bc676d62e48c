//! The pool of instances of one version of a plugin: it chooses the one that answers a request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Request;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

use super::job::Job;
use super::requests::Requests;
use crate::config::Reuse;
use crate::serve::instance_metrics::{EndReason, InstanceMetrics};
use crate::serve::places::Places;

/// The instances of one version of a plugin.
pub(in crate::serve) struct InstancePool {
    reuse: Reuse,
    /// The number of instances that can compute at the same time.
    threads: usize,
    places: Arc<Places>,
    metrics: Arc<InstanceMetrics>,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    instances: Vec<PooledInstance>,
    last_id: u64,
    /// True once the plugin is reloaded or the host shuts down: an instance gets one request.
    is_closed: bool,
}

/// An instance that takes requests. It takes no more once this is dropped, and ends when it has answered those it has.
struct PooledInstance {
    id: u64,
    /// Has at most `concurrent` requests: each is counted before it is sent.
    tasks: UnboundedSender<Task>,
    accepted: usize,
    created: Instant,
    /// Since when the instance has no request and no task.
    idle_since: Option<Instant>,
    load: Arc<Load>,
    metrics: Arc<InstanceMetrics>,
}

/// What an instance and those who choose it know of each other.
pub(super) struct Load {
    pub(super) requests: Requests,
    /// The requests that are being answered. Grows only under the lock of the pool.
    running: AtomicUsize,
    /// Requests that were sent to the instance, and that it has not begun.
    pub(super) queued: AtomicUsize,
    /// True while the instance computes, or has yet to look at a request. Of no meaning while it is idle.
    pub(super) is_busy: AtomicBool,
    /// True while the instance has computed for so long that it may never let its other requests go on.
    pub(super) is_stuck: AtomicBool,
    /// Why it gets no more requests.
    end: Mutex<EndReason>,
}

/// An instance that is to be created.
pub(super) struct NewInstance {
    pub(super) id: u64,
    pub(super) tasks: UnboundedReceiver<Task>,
    pub(super) load: Arc<Load>,
}

impl Load {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: Requests::default(),
            running: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            is_busy: AtomicBool::new(true),
            is_stuck: AtomicBool::new(false),
            end: Mutex::new(EndReason::Stopped),
        })
    }

    fn set_end(&self, reason: EndReason) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why the instance gets no more requests. `Stopped` as long as it does.
    pub(super) fn end(&self) -> EndReason {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that an instance is to answer.
pub(super) struct Task {
    pub(super) id: u64,
    pub(super) request: Request<WasiBody>,
    /// Dropped once the body of the response is taken or given up: before a client can send its next request.
    pub(super) room: UsedRoom,
}

/// The room that one request takes in its instance.
pub(super) struct UsedRoom(Arc<Load>);

impl UsedRoom {
    fn of(load: &Arc<Load>) -> Self {
        load.running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(load))
    }
}

impl Drop for UsedRoom {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl PooledInstance {
    fn set_idle(&mut self, since: Option<Instant>) {
        match (self.idle_since.is_some(), since.is_some()) {
            (false, true) => self.metrics.idle.increment(1),
            (true, false) => self.metrics.idle.decrement(1),
            _ => {}
        }
        self.idle_since = since;
    }

    /// Gives a request to the instance. Returns it if the task of the instance is gone.
    fn send(&mut self, job: Job) -> Option<Job> {
        self.set_idle(None);
        let room = UsedRoom::of(&self.load);
        self.accepted = self.accepted.saturating_add(1);
        self.load.is_busy.store(true, Ordering::SeqCst);
        self.load.queued.fetch_add(1, Ordering::SeqCst);
        let Job { request, waiting } = job;
        let id = self.load.requests.add(waiting);
        let SendError(Task { request, .. }) = self.tasks.send(Task { id, request, room }).err()?;
        self.load.requests.take_back(id).map(|waiting| Job { request, waiting })
    }

    fn running(&self) -> usize {
        self.load.running.load(Ordering::SeqCst)
    }

    /// True if the instance would begin a request at once.
    fn is_waiting(&self) -> bool {
        // An idle instance is not polled, and so does not note that it is no longer busy.
        self.idle_since.is_some() || !self.load.is_busy.load(Ordering::SeqCst)
    }
}

impl Drop for PooledInstance {
    fn drop(&mut self) {
        self.set_idle(None);
    }
}

impl InstancePool {
    pub(in crate::serve) fn new(plugin: &str, reuse: Option<Reuse>, threads: usize, places: &Arc<Places>) -> Self {
        Self {
            reuse: reuse.unwrap_or(Reuse::CONCURRENT),
            threads,
            places: Arc::clone(places),
            metrics: Arc::new(InstanceMetrics::new(plugin)),
            list: Mutex::default(),
        }
    }

    pub(super) fn idle(&self) -> Duration {
        self.reuse.idle
    }

    pub(super) fn metrics(&self) -> &Arc<InstanceMetrics> {
        &self.metrics
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a request to an instance. Returns one that is to be created if the request is the first of a new one.
    pub(super) fn assign(&self, mut job: Job) -> Option<NewInstance> {
        let now = Instant::now();
        let mut list = self.list();
        list.remove_aged(&self.reuse, now);
        loop {
            let chosen = list.choose(&self.reuse, self.threads);
            let new = chosen.is_none().then(|| list.add(now, &self.metrics));
            let index = chosen.unwrap_or(list.instances.len().saturating_sub(1));
            let is_closed = list.is_closed;
            let Some(instance) = list.instances.get_mut(index) else { return new };
            if let Some(returned) = instance.send(job) {
                list.remove(index, EndReason::Stopped);
                job = returned;
                continue;
            }
            if new.is_none() {
                self.metrics.reused.increment(1);
            }
            if is_closed {
                list.remove(index, EndReason::Closed);
            } else if instance.accepted >= self.reuse.requests {
                list.remove(index, EndReason::Requests);
            }
            return new;
        }
    }

    /// Notes that an instance has no request and no task. It ends if its place is wanted.
    pub(super) fn rests(&self, id: u64) {
        let mut list = self.list();
        let Some((index, instance)) = list.find(id) else { return };
        if instance.running() > 0 {
            // A request is on its way.
            return;
        }
        // Read under the lock: a request that wants a place has said so before it looks for idle instances.
        if self.places.are_wanted() {
            list.remove(index, EndReason::Displaced);
        } else {
            instance.set_idle(Some(Instant::now()));
        }
    }

    /// Takes an instance out of the pool. With `if_idle` only if no request was given to it meanwhile; returns false if
    /// it stays.
    pub(super) fn leave(&self, id: u64, reason: EndReason, if_idle: bool) -> bool {
        let mut list = self.list();
        let Some((index, instance)) = list.find(id) else { return true };
        if if_idle && instance.running() > 0 {
            return false;
        }
        list.remove(index, reason);
        true
    }

    /// Since when the instance that is idle for longest is.
    pub(in crate::serve) fn first_idle_since(&self) -> Option<Instant> {
        self.list().instances.iter().filter_map(|instance| instance.idle_since).min()
    }

    /// Ends the instance that has been idle for longest. Returns false if none is idle.
    pub(in crate::serve) fn displace_first(&self) -> bool {
        let mut list = self.list();
        let idle = list.instances.iter().enumerate();
        let idle = idle.filter_map(|(index, instance)| Some((instance.idle_since?, index)));
        let Some((_, index)) = idle.min() else { return false };
        list.remove(index, EndReason::Displaced);
        true
    }

    /// Ends all instances after the requests that they have.
    pub(in crate::serve) fn close(&self) {
        let mut list = self.list();
        list.is_closed = true;
        while !list.instances.is_empty() {
            list.remove(0, EndReason::Closed);
        }
    }
}

impl List {
    /// The instance for the next request: one that waits, or else the one with the fewest requests, unless a new one
    /// could compute on another thread.
    fn choose(&self, reuse: &Reuse, threads: usize) -> Option<usize> {
        let has_room = |instance: &&PooledInstance| instance.running() < reuse.concurrent;
        let found = self.instances.iter().position(|instance| has_room(&instance) && instance.is_waiting());
        if found.is_some() || self.instances.len() < threads {
            return found;
        }
        let is_stuck = |instance: &PooledInstance| instance.load.is_stuck.load(Ordering::SeqCst);
        let with_room =
            self.instances.iter().enumerate().filter(|(_, instance)| has_room(instance) && !is_stuck(instance));
        with_room.min_by_key(|(_, instance)| instance.running()).map(|(index, _)| index)
    }

    fn find(&mut self, id: u64) -> Option<(usize, &mut PooledInstance)> {
        self.instances.iter_mut().enumerate().find(|(_, instance)| instance.id == id)
    }

    fn add(&mut self, now: Instant, metrics: &Arc<InstanceMetrics>) -> NewInstance {
        metrics.created.increment(1);
        self.last_id = self.last_id.wrapping_add(1);
        let (sender, tasks) = unbounded_channel();
        let load = Load::new();
        self.instances.push(PooledInstance {
            id: self.last_id,
            tasks: sender,
            accepted: 0,
            created: now,
            idle_since: None,
            load: Arc::clone(&load),
            metrics: Arc::clone(metrics),
        });
        NewInstance { id: self.last_id, tasks, load }
    }

    /// Removes an instance: it gets no more requests, for this reason.
    fn remove(&mut self, index: usize, reason: EndReason) {
        if index < self.instances.len() {
            self.instances.swap_remove(index).load.set_end(reason);
        }
    }

    fn remove_aged(&mut self, reuse: &Reuse, now: Instant) {
        let is_aged = |instance: &PooledInstance| now.saturating_duration_since(instance.created) >= reuse.max_age;
        while let Some(index) = self.instances.iter().position(is_aged) {
            self.remove(index, EndReason::MaxAge);
        }
    }
}

impl Drop for InstancePool {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http_body_util::{BodyExt as _, Empty};

    use super::super::requests::tests::{Ended, waiting};
    use super::*;

    pub(in crate::serve::concurrent) fn pool(threads: usize) -> InstancePool {
        InstancePool::new("plugin", None, threads, &Places::new(10))
    }

    pub(in crate::serve::concurrent) fn job() -> (Job, Ended) {
        let (waiting, ended) = waiting(Duration::from_secs(60));
        let request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        (Job { request, waiting }, ended)
    }

    fn answer_one(instance: &mut NewInstance) {
        drop(instance.tasks.try_recv().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_rests_gets_the_next_request_whatever_its_last_poll_took() {
        let pool = pool(2);
        let mut new = pool.assign(job().0).unwrap();
        answer_one(&mut new);
        pool.rests(new.id);
        new.load.is_busy.store(true, Ordering::SeqCst);
        new.load.is_stuck.store(true, Ordering::SeqCst);
        assert!(pool.assign(job().0).is_none());
        assert!(pool.assign(job().0).is_some(), "it has a request and is busy");
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_with_a_task_after_its_response_takes_requests_and_is_not_displaced() {
        let pool = pool(1);
        let mut new = pool.assign(job().0).unwrap();
        answer_one(&mut new);
        assert!(!pool.displace_first());
        assert!(pool.assign(job().0).is_none());
        answer_one(&mut new);
        pool.rests(new.id);
        assert!(pool.displace_first() && !pool.displace_first());
        assert!(new.tasks.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_for_an_instance_that_is_gone_gets_another() {
        let pool = pool(1);
        drop(pool.assign(job().0).unwrap());
        let (job, mut ended) = job();
        let new = pool.assign(job).expect("a new instance");
        assert_eq!(new.tasks.len(), 1);
        assert!(ended.try_recv().is_err(), "it waits");
        assert_eq!(pool.list().instances.len(), 1);
    }
}
