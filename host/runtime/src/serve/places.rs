//! The places of instances: there are as many as requests may run, and a request never waits for an idle instance.

// Decision: docs/decisions/0076-an-idle-instance-gives-its-place-to-any-request.md

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;

use super::concurrent::InstancePool;
use super::handler::Handler;
use super::instances::Instance;
use super::state::ServerState;
use crate::error::Error;
use crate::runtime::{Console, RunOptions};

/// The places of all instances of a host, idle ones included.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// The number of requests that look for a place. Meanwhile no instance becomes idle, so that none of them waits for
    /// one that is.
    wanted: AtomicUsize,
    /// True once the host shuts down: no instance becomes idle any more.
    are_closed: AtomicBool,
}

/// A request that looks for a place.
struct Want<'a>(&'a AtomicUsize);

impl Places {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(max)),
            wanted: AtomicUsize::new(0),
            are_closed: AtomicBool::new(false),
        })
    }

    /// True if a request looks for a place.
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0
    }

    /// True once the host shuts down.
    pub(super) fn are_closed(&self) -> bool {
        self.are_closed.load(Ordering::SeqCst)
    }

    fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    fn want(&self) -> Want<'_> {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        Want(&self.wanted)
    }

    /// Takes a place. `displace` ends an idle instance, if there is one: at once, or soon.
    ///
    /// Each other request that runs has one place at most, so a place without a request is that of an idle instance, or of
    /// one that is being dropped.
    pub(super) async fn take(&self, displace: impl FnOnce()) -> Option<OwnedSemaphorePermit> {
        if let Some(place) = self.try_take() {
            return Some(place);
        }
        let _want = self.want();
        // In the queue before an instance ends: a request that comes later cannot take the place, and so each request that
        // waits ends one instance at most. A task without a budget would not be queued.
        let mut place = pin!(unconstrained(Arc::clone(&self.free).acquire_owned()));
        let polled = poll_fn(|context| Poll::Ready(place.as_mut().poll(context))).await;
        if let Poll::Ready(place) = polled {
            return place.ok();
        }
        displace();
        place.await.ok()
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ServerState {
    /// An idle instance of the plugin, or a new one.
    pub(super) async fn instance(&self, handler: &Handler) -> Result<Instance, Error> {
        if let Some(instances) = handler.instances()
            && let Some(instance) = instances.take().await
        {
            return Ok(instance);
        }
        let place = match &self.places {
            Some(places) => places.take(|| self.displace()).await,
            // No instance is ever idle, so that there are as many places as requests.
            None => None,
        };
        let store = self.runtime.store(&handler.plugin, &RunOptions::default(), Console::Prefixed)?;
        let record = handler.instances().map(|instances| instances.record());
        Ok(Instance { store, proxy: None, record, _place: place })
    }

    /// Ends the instance that has been idle for longest, of all plugins, if one is idle.
    fn displace(&self) {
        loop {
            let all = self.routes.iter().filter_map(|route| route.handler().instances().cloned());
            let idle = all.filter_map(|instances| instances.first_idle_since().map(|since| (since, instances)));
            let Some((_, instances)) = idle.min_by_key(|(since, _)| *since) else { return };
            // It may have been taken meanwhile.
            if instances.displace_first() {
                return;
            }
        }
    }

    /// Ends the instance of WASI 0.3 that has been idle for longest, of all plugins, if one is idle.
    pub(super) fn displace_concurrent(&self) {
        loop {
            let handlers = self.routes.iter().map(|route| route.handler());
            let idle = handlers.filter_map(|handler| Some((handler.pool()?.first_idle_since()?, handler)));
            let Some((_, handler)) = idle.min_by_key(|(since, _)| *since) else { return };
            // It may have been given a request meanwhile.
            if handler.pool().is_some_and(InstancePool::displace_first) {
                return;
            }
        }
    }

    /// Ends the idle instances of all plugins.
    pub(super) fn close_instances(&self) {
        // Before the lists are closed: a reload that ends now has a new one.
        if let Some(places) = &self.places {
            places.are_closed.store(true, Ordering::SeqCst);
        }
        self.routes.iter().for_each(|route| route.handler().close());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test]
    async fn a_request_says_that_it_wants_a_place_before_it_looks_for_an_idle_instance() {
        let places = Places::new(1);
        let held = places.take(|| panic!("a place is free")).await.unwrap();
        let looks = Cell::new(0);
        {
            let mut taking = pin!(places.take(|| {
                assert!(places.are_wanted());
                looks.set(looks.get() + 1);
            }));
            tokio::select! {
                biased;
                _ = &mut taking => panic!("no place is free"),
                () = std::future::ready(()) => {}
            }
            assert!(places.are_wanted() && looks.get() == 1);
            // That of an instance that was about to be dropped.
            drop(held);
            assert!(taking.await.is_some());
        }
        assert!(!places.are_wanted());
    }

    #[tokio::test]
    async fn a_request_takes_the_place_of_an_idle_instance() {
        let places = Places::new(1);
        let idle = RefCell::new(places.take(|| panic!("a place is free")).await);
        let end = || {
            idle.take();
            assert!(places.try_take().is_none(), "no other request takes it");
        };
        assert!(places.take(end).await.is_some());
        assert!(!places.are_wanted());
    }

    #[tokio::test]
    async fn each_request_ends_one_idle_instance_that_ends_later() {
        let places = Places::new(3);
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(places.take(|| panic!("a place is free")).await);
        }
        let (idle, ending) = (RefCell::new(idle), RefCell::new(Vec::new()));
        let end_one = || ending.borrow_mut().push(idle.borrow_mut().pop());
        let (mut first, mut second) = (pin!(places.take(end_one)), pin!(places.take(end_one)));
        tokio::select! {
            biased;
            _ = &mut first => panic!("no place is free"),
            _ = &mut second => panic!("no place is free"),
            () = std::future::ready(()) => {}
        }
        assert_eq!((idle.borrow().len(), ending.borrow().len()), (1, 2));
        ending.borrow_mut().clear();
        assert!(first.await.is_some() && second.await.is_some());
        assert_eq!(idle.borrow().len(), 1);
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_while_it_waits_leaves_its_place_to_the_next_one() {
        let places = Places::new(1);
        let held = RefCell::new(places.take(|| panic!("a place is free")).await);
        {
            let mut dropped = pin!(places.take(|| drop(held.take())));
            let _once = poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context).is_ready())).await;
        }
        assert!(places.try_take().is_some() && !places.are_wanted());
    }
}
