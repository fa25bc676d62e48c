//! One instance: its task begins requests as they come, and ends the instance when it has none.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as SystemInstant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::answering::{Answering, Stage};
use super::burst::Bursts;
use super::job::Job;
use super::membership::{Membership, PanicGuard, same};
use super::pool::{InstancePool, NewInstance, Task};
use crate::error::Error;
use crate::plugin::Plugin;
use crate::plugin_state::PluginState;
use crate::runtime::{Console, Failure, RunOptions};
use crate::serve::handler::{Handler, Proxy};
use crate::serve::instance_metrics::EndReason;
use crate::serve::state::ServerState;

/// A poll of this length was ended by the plugin's tick: it computes and does not wait.
const LONG_POLL: Duration = Duration::from_millis(4);

/// An instance that has computed for this long without letting its other requests go on gets no further ones meanwhile.
const STUCK: Duration = Duration::from_millis(20);

impl ServerState {
    /// Gives a request to an instance of the plugin, which is created if need be.
    pub(in crate::serve) fn assign(self: &Arc<Self>, handler: &Arc<Handler>, job: Job) {
        let Proxy::Concurrent { pool, .. } = &handler.proxy else { return };
        if let Some(new) = pool.assign(job) {
            let (state, handler) = (Arc::clone(self), Arc::clone(handler));
            let running = self.admission.track();
            tokio::spawn(async move {
                if let Proxy::Concurrent { pre, pool } = &handler.proxy {
                    let worker = Worker { state: &state, plugin: &handler.plugin, pool, new };
                    let left = worker.work(pre).await;
                    left.into_iter().for_each(|job| state.assign(&handler, job));
                }
                drop((handler, running));
            });
        }
    }
}

/// The task of one instance.
struct Worker<'a> {
    state: &'a Arc<ServerState>,
    plugin: &'a Plugin,
    pool: &'a InstancePool,
    new: NewInstance,
}

/// How an instance ended.
enum End {
    /// It had no request, and is to answer no more.
    Finished(EndReason),
    Failed(Failure),
}

impl Worker<'_> {
    /// Creates the instance and answers requests until it ends. Returns those that it has not begun, for another one.
    async fn work(self, pre: &ServicePre<PluginState>) -> Vec<Job> {
        let Self { state, plugin, pool, new } = self;
        let NewInstance { id, mut tasks, load } = new;
        let name = plugin.name();
        // Behind the queue: no request is sent to one that is dropped.
        let mut member = Membership { pool, id, load: &load, plugin: name, end: EndReason::Stopped };
        let stage = Stage::default();
        let ended = Self::until_end(state, plugin, pre, &member, &stage, &mut tasks).await;
        let mut left = Vec::new();
        match ended {
            End::Finished(reason) => member.end = reason,
            End::Failed(failure) => {
                // An instance that has begun none may be one of many that cannot be created.
                while stage.has_begun.load(Ordering::Relaxed)
                    && !state.cut_off.is_cancelled()
                    && let Ok(Task { id, request, .. }) = tasks.try_recv()
                {
                    left.extend(load.requests.take_back(id).map(|waiting| Job { request, waiting }));
                }
                load.requests.fail_all(|| same(name, &failure));
            }
        }
        left
    }

    /// Creates the instance and answers requests until it ends. Then the requests that it has begun are ended too.
    async fn until_end(
        state: &Arc<ServerState>,
        plugin: &Plugin,
        pre: &ServicePre<PluginState>,
        member: &Membership<'_>,
        stage: &Stage,
        tasks: &mut UnboundedReceiver<Task>,
    ) -> End {
        let answering = async {
            let place = state.concurrent_places.take(|| state.displace_concurrent()).await;
            let store = state.runtime.store(plugin, &RunOptions::default(), Console::Prefixed);
            let mut store = match store {
                Ok(store) => store,
                Err(error) => return End::Failed(Failure::Failed(error)),
            };
            let _guard = PanicGuard(member);
            let ended = async {
                let service = pre.instantiate_async(&mut store).await?;
                let answering = store.run_concurrent(async |accessor| {
                    Answering { accessor, service: &service, member, stage, first: None }.until_end(tasks).await
                });
                answering.await?
            };
            let ended = match ended.await {
                Ok(reason) => End::Finished(reason),
                Err(error) => {
                    let failure = state.runtime.failure(plugin, store.data(), &error);
                    // Before the store and the unfinished bodies in it are dropped.
                    member.fail(&failure);
                    End::Failed(failure)
                }
            };
            drop(store);
            drop(place);
            ended
        };
        // Not constrained: one poll may serve many requests.
        let mut answering = pin!(tokio::task::unconstrained(answering));
        let ended = tokio::select! {
            biased;
            ended = within_bounds(answering.as_mut(), member, stage, state, plugin) => ended,
            // Those who wait for the requests are cut off as well.
            () = state.cut_off.cancelled() => End::Failed(Failure::Failed(Error::Trap {
                plugin: plugin.name().to_owned(),
                reason: "the host is shutting down".to_owned(),
            })),
        };
        if let End::Failed(failure) = &ended {
            member.fail(failure);
        }
        ended
    }
}

/// Polls the instance in its turn, and ends it if a request exceeds a bound.
///
/// The bounds are checked from outside, because a plugin that computes keeps all else in its store from being polled.
async fn within_bounds(
    mut answering: Pin<&mut impl Future<Output = End>>,
    member: &Membership<'_>,
    stage: &Stage,
    state: &ServerState,
    plugin: &Plugin,
) -> End {
    let runtime = &state.runtime;
    let (requests, load) = (&member.load.requests, member.load);
    let mut turn = runtime.turn(plugin);
    let mut timer = pin!(sleep(Duration::ZERO));
    // The time since no call of the plugin held the store.
    let mut at_a_stretch = Duration::ZERO;
    // True once a request was overdue.
    let mut is_overdue = false;
    // True once the tasks in the queue have gone first.
    let mut is_last = false;
    let mut bursts = Bursts::default();
    poll_fn(|context| {
        // All requests that come meanwhile, and all bodies that are taken, are one poll of the instance.
        if !is_last && runtime.is_calm() {
            is_last = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(turn.poll_begin(context));
        is_last = false;
        stage.was_polled.store(false, Ordering::Relaxed);
        let is_unattended = requests.are_answered();
        let began = SystemInstant::now();
        let polled = bursts.poll(answering.as_mut(), context);
        stage.hand_out();
        let elapsed = began.elapsed();
        turn.end(context, elapsed, polled.is_pending());
        if let Poll::Ready(end) = polled {
            return Poll::Ready(end);
        }
        let was_polled = stage.was_polled.load(Ordering::Relaxed);
        at_a_stretch = if was_polled { elapsed } else { at_a_stretch.saturating_add(elapsed) };
        let max = runtime.max_cpu_time();
        if requests.charge(elapsed, is_unattended) > max || at_a_stretch > max {
            return Poll::Ready(End::Failed(Failure::Failed(runtime.out_of_cpu_time(plugin))));
        }
        let is_busy = !was_polled || elapsed >= LONG_POLL || load.queued.load(Ordering::SeqCst) > 0;
        load.is_busy.store(is_busy, Ordering::SeqCst);
        load.is_stuck.store(!was_polled && at_a_stretch >= STUCK, Ordering::SeqCst);
        poll_deadline(context, timer.as_mut(), member, &mut is_overdue, || runtime.timed_out(plugin))
    })
    .await
}

/// Ends the requests that are overdue. The instance gets no more, and ends after those that are not.
fn poll_deadline(
    context: &mut Context<'_>,
    mut timer: Pin<&mut Sleep>,
    member: &Membership<'_>,
    is_overdue: &mut bool,
    error: impl Fn() -> Error,
) -> Poll<End> {
    let requests = &member.load.requests;
    loop {
        if requests.expire(Instant::now(), &error) > 0 {
            *is_overdue = true;
            member.pool.leave(member.id, EndReason::Stopped, false);
        }
        let Some(deadline) = requests.first_deadline() else {
            return if *is_overdue { Poll::Ready(End::Finished(EndReason::Stopped)) } else { Poll::Pending };
        };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(context));
    }
}
