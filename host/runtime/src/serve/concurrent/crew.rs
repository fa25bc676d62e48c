//! The instances of one version of a plugin, and the choice of one for a request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::job::{Job, Task};
use super::requests::Requests;
use crate::config::Reuse;
use crate::serve::instance_metrics::{EndReason, InstanceMetrics};
use crate::serve::places::Places;

/// The instances of one version of a plugin.
pub(in crate::serve) struct Crew {
    reuse: Reuse,
    /// The maximum time of a request.
    timeout: Duration,
    /// The number of instances that can compute at the same time.
    threads: usize,
    places: Arc<Places>,
    metrics: Arc<InstanceMetrics>,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    members: Vec<Member>,
    last_id: u64,
    /// True once the plugin is reloaded or the host shuts down: an instance gets one request.
    is_closed: bool,
}

/// An instance that takes requests. It takes no more once this is dropped, and ends when it has answered those it has.
struct Member {
    id: u64,
    /// Has at most `concurrent` requests: each is counted before it is sent.
    tasks: UnboundedSender<Task>,
    running: usize,
    accepted: usize,
    created: Instant,
    idle_since: Option<Instant>,
    load: Arc<Load>,
    metrics: Arc<InstanceMetrics>,
}

/// What an instance and those who choose it know of each other.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) requests: Requests,
    /// Requests that were sent to the instance, and that it has not begun.
    pub(super) queued: AtomicUsize,
    /// True while the instance computes, or has yet to look at a request.
    pub(super) is_busy: AtomicBool,
    /// True while the instance has computed for so long that it may never let its other requests go on.
    pub(super) is_stuck: AtomicBool,
    /// Why it gets no more requests.
    end: Mutex<EndReason>,
}

/// An instance that is to be created.
pub(super) struct Recruit {
    pub(super) id: u64,
    pub(super) tasks: UnboundedReceiver<Task>,
    pub(super) load: Arc<Load>,
}

impl Load {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: Requests::default(),
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

impl Member {
    fn set_idle(&mut self, since: Option<Instant>) {
        match (self.idle_since.is_some(), since.is_some()) {
            (false, true) => self.metrics.idle.increment(1),
            (true, false) => self.metrics.idle.decrement(1),
            _ => {}
        }
        self.idle_since = since;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set_idle(None);
    }
}

impl Crew {
    pub(in crate::serve) fn new(
        plugin: &str,
        reuse: Option<Reuse>,
        timeout: Duration,
        threads: usize,
        places: &Arc<Places>,
    ) -> Self {
        Self {
            reuse: reuse.unwrap_or(Reuse::CONCURRENT),
            timeout,
            threads,
            places: Arc::clone(places),
            metrics: Arc::new(InstanceMetrics::new(plugin)),
            list: Mutex::default(),
        }
    }

    pub(super) fn idle(&self) -> Duration {
        self.reuse.idle
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn metrics(&self) -> &Arc<InstanceMetrics> {
        &self.metrics
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a request to an instance. Returns one that is to be created if the request is the first of a new one.
    pub(super) fn assign(&self, job: Job) -> Option<Recruit> {
        let now = Instant::now();
        let mut list = self.list();
        list.retire_aged(&self.reuse, now);
        let chosen = list.choose(&self.reuse, self.threads);
        let mut recruit = None;
        let index = match chosen {
            Some(index) => index,
            None => {
                recruit = Some(list.recruit(now, &self.metrics));
                list.members.len().saturating_sub(1)
            }
        };
        let is_closed = list.is_closed;
        let Some(member) = list.members.get_mut(index) else { return recruit };
        if recruit.is_none() {
            self.metrics.reused.increment(1);
        }
        member.set_idle(None);
        member.running = member.running.saturating_add(1);
        member.accepted = member.accepted.saturating_add(1);
        member.load.is_busy.store(true, Ordering::SeqCst);
        member.load.queued.fetch_add(1, Ordering::SeqCst);
        let Job { request, waiting } = job;
        let id = member.load.requests.add(self.timeout, waiting);
        // An instance ends only after it has left the list.
        let _sent = member.tasks.send(Task { id, request });
        if is_closed {
            list.retire(index, EndReason::Closed);
        } else if member.accepted >= self.reuse.requests {
            list.retire(index, EndReason::Requests);
        }
        recruit
    }

    /// Notes that an instance has ended a request. With `end` it takes no further one, for this reason.
    pub(super) fn finished(&self, id: u64, end: Option<EndReason>) {
        let mut list = self.list();
        let Some(index) = list.members.iter().position(|member| member.id == id) else { return };
        let Some(member) = list.members.get_mut(index) else { return };
        member.running = member.running.saturating_sub(1);
        let is_idle = member.running == 0;
        // Read under the lock: a request that wants a place has said so before it looks for idle instances.
        if let Some(reason) = end.or_else(|| (is_idle && self.places.are_wanted()).then_some(EndReason::Displaced)) {
            list.retire(index, reason);
        } else if is_idle {
            member.set_idle(Some(Instant::now()));
        }
    }

    /// Takes an instance out of the list. With `if_idle` only if no request was given to it meanwhile; returns false if it
    /// stays.
    pub(super) fn leave(&self, id: u64, reason: EndReason, if_idle: bool) -> bool {
        let mut list = self.list();
        let Some(index) = list.members.iter().position(|member| member.id == id) else { return true };
        if if_idle && list.members.get(index).is_some_and(|member| member.running > 0) {
            return false;
        }
        list.retire(index, reason);
        true
    }

    /// Since when the instance that is idle for longest is.
    pub(in crate::serve) fn first_idle_since(&self) -> Option<Instant> {
        self.list().members.iter().filter_map(|member| member.idle_since).min()
    }

    /// Ends the instance that has been idle for longest. Returns false if none is idle.
    pub(in crate::serve) fn displace_first(&self) -> bool {
        let mut list = self.list();
        let idle = list.members.iter().enumerate().filter_map(|(index, member)| Some((member.idle_since?, index)));
        let Some((_, index)) = idle.min() else { return false };
        list.retire(index, EndReason::Displaced);
        true
    }

    /// Ends all instances after the requests that they have.
    pub(in crate::serve) fn close(&self) {
        let mut list = self.list();
        list.is_closed = true;
        while !list.members.is_empty() {
            list.retire(0, EndReason::Closed);
        }
    }
}

impl List {
    /// The instance for the next request: one that waits, or else the one with the fewest requests, unless a new one could
    /// compute on another thread.
    fn choose(&self, reuse: &Reuse, threads: usize) -> Option<usize> {
        let has_room = |member: &&Member| member.running < reuse.concurrent;
        let waiting = |member: &Member| !member.load.is_busy.load(Ordering::SeqCst);
        let found = self.members.iter().position(|member| has_room(&member) && waiting(member));
        if found.is_some() || self.members.len() < threads {
            return found;
        }
        let is_stuck = |member: &Member| member.load.is_stuck.load(Ordering::SeqCst);
        let with_room = self.members.iter().enumerate().filter(|(_, member)| has_room(member) && !is_stuck(member));
        with_room.min_by_key(|(_, member)| member.running).map(|(index, _)| index)
    }

    fn recruit(&mut self, now: Instant, metrics: &Arc<InstanceMetrics>) -> Recruit {
        metrics.created.increment(1);
        self.last_id = self.last_id.wrapping_add(1);
        let (sender, tasks) = unbounded_channel();
        let load = Load::new();
        self.members.push(Member {
            id: self.last_id,
            tasks: sender,
            running: 0,
            accepted: 0,
            created: now,
            idle_since: None,
            load: Arc::clone(&load),
            metrics: Arc::clone(metrics),
        });
        Recruit { id: self.last_id, tasks, load }
    }

    fn retire(&mut self, index: usize, reason: EndReason) {
        if index < self.members.len() {
            self.members.swap_remove(index).load.set_end(reason);
        }
    }

    fn retire_aged(&mut self, reuse: &Reuse, now: Instant) {
        let is_aged = |member: &Member| now.saturating_duration_since(member.created) >= reuse.max_age;
        while let Some(index) = self.members.iter().position(is_aged) {
            self.retire(index, EndReason::MaxAge);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.close();
    }
}
