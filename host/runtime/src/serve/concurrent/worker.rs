//! One instance: its task begins requests as they come, and ends the instance when it has none.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as SystemInstant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use wasmtime::AsContextMut as _;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView as _};

use super::burst::Bursts;
use super::job::{Job, NoResponse, Task};
use super::pool::{InstancePool, Load, NewInstance, UsedRoom};
use super::requests::Requests;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::plugin_state::PluginState;
use crate::runtime::{Console, Failure, RunOptions};
use crate::sandbox::Room;
use crate::serve::error_text::PluginError;
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

/// An instance as a member of the pool, until its task ends.
struct Membership<'a> {
    pool: &'a InstancePool,
    id: u64,
    load: &'a Load,
    /// The name of the plugin.
    plugin: &'a str,
    /// Why the instance ends.
    end: EndReason,
}

impl Membership<'_> {
    /// Ends the requests that the instance has begun. It gets no more.
    fn fail(&self, failure: &Failure) {
        self.pool.leave(self.id, EndReason::Stopped, false);
        self.load.requests.fail_begun(|| same(self.plugin, failure));
    }
}

impl Drop for Membership<'_> {
    /// If the task of the instance has panicked, no request is sent to it any more, and none waits for it.
    fn drop(&mut self) {
        self.pool.leave(self.id, EndReason::Stopped, false);
        self.load.requests.fail_all(|| same(self.plugin, &panicked(self.plugin)));
        self.pool.metrics().ended(self.end).increment(1);
    }
}

/// Ends the requests of an instance if its task panics: before its store and the unfinished bodies in it are dropped.
struct PanicGuard<'a>(&'a Membership<'a>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&panicked(self.0.plugin));
        }
    }
}

fn panicked(plugin: &str) -> Failure {
    Failure::Failed(Error::Trap { plugin: plugin.to_owned(), reason: "its instance ended".to_owned() })
}

/// The error for one of the requests.
fn same(plugin: &str, failure: &Failure) -> Error {
    let error = match failure {
        Failure::Exited(status) => {
            let reason = format!("it exited with status {status} during a request");
            return Error::Trap { plugin: plugin.to_owned(), reason };
        }
        Failure::Failed(error) => error,
    };
    match error {
        Error::Stopped { plugin, limit, reason } => {
            Error::Stopped { plugin: plugin.clone(), limit, reason: reason.clone() }
        }
        Error::Trap { plugin, reason } => Error::Trap { plugin: plugin.clone(), reason: reason.clone() },
        other => Error::Trap { plugin: plugin.to_owned(), reason: other.to_string() },
    }
}

/// What the loop over the requests tells the bounds around it.
#[derive(Default)]
struct Stage {
    /// True once the loop was polled: no call of the plugin holds the store.
    was_polled: AtomicBool,
    /// True once the plugin has got a request.
    has_begun: AtomicBool,
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

/// The loop over the requests of an instance.
struct Answering<'a> {
    accessor: &'a Accessor<PluginState>,
    service: &'a Service,
    member: &'a Membership<'a>,
    stage: &'a Stage,
    /// What the instance could still take after its first request.
    first: Option<Room>,
}

impl Answering<'_> {
    /// Begins requests as they come. Returns once the instance is to answer no more and has answered all.
    async fn until_end(mut self, tasks: &mut UnboundedReceiver<Task>) -> wasmtime::Result<EndReason> {
        let Self { accessor, service, member, stage, .. } = self;
        let requests = &member.load.requests;
        let mut calls = FuturesUnordered::new();
        // The last request, if it is answered and the plugin has tasks.
        let mut last = None;
        // While there is neither.
        let mut idle: Option<Pin<Box<Sleep>>> = None;
        let mut is_closed = false;
        poll_fn(|context| {
            stage.was_polled.store(true, Ordering::Relaxed);
            if accessor.with(|mut access| access.data_mut().output.is_exceeded()) {
                return Poll::Ready(Err(wasmtime::Error::msg("the plugin exceeded its output limit")));
            }
            loop {
                match calls.poll_next_unpin(context) {
                    Poll::Ready(Some(Ok(id))) => {
                        if let Some(reason) = self.end_request(calls.is_empty()) {
                            member.pool.leave(member.id, reason, false);
                        }
                        if calls.is_empty() {
                            requests.answered(id);
                            last = Some(id);
                        } else {
                            requests.complete(id);
                        }
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) | Poll::Pending => {}
                }
                match tasks.poll_recv(context) {
                    Poll::Ready(Some(task)) => {
                        member.load.queued.fetch_sub(1, Ordering::SeqCst);
                        stage.has_begun.store(true, Ordering::Relaxed);
                        idle = None;
                        // The instance has its place for this request now.
                        if let Some(id) = last.take() {
                            requests.complete(id);
                        }
                        calls.push(answer(accessor, service, requests, task));
                        continue;
                    }
                    Poll::Ready(None) => is_closed = true,
                    Poll::Pending => {}
                }
                break;
            }
            if !calls.is_empty() {
                return Poll::Pending;
            }
            // Decision: docs/decisions/0109-a-request-lasts-as-long-as-the-tasks-that-it-leaves.md
            ready!(accessor.poll_no_interesting_tasks(context));
            if let Some(id) = last.take() {
                accessor.with(|mut access| access.data_mut().end_work());
                requests.rest();
                member.pool.rests(member.id);
                requests.complete(id);
            }
            if is_closed {
                return Poll::Ready(Ok(member.load.end()));
            }
            let timer = idle.get_or_insert_with(|| {
                let end = Instant::now().checked_add(member.pool.idle()).unwrap_or_else(Instant::now);
                Box::pin(sleep_until(end))
            });
            ready!(timer.as_mut().poll(context));
            if member.pool.leave(member.id, EndReason::Idle, true) {
                return Poll::Ready(Ok(member.load.end()));
            }
            // A request is on its way.
            Poll::Pending
        })
        .await
    }

    /// Ends a request: the output of the next one has the whole limit. Returns the reason if the instance is to take no
    /// more, because of what it keeps when no request runs: what running requests use they give back.
    fn end_request(&mut self, is_last: bool) -> Option<EndReason> {
        let room = self.accessor.with(|mut access| {
            let state = access.data_mut();
            state.output.begin_anew();
            is_last.then(|| state.room())
        })?;
        room.is_small_beside(self.first.get_or_insert(room)).then_some(EndReason::Full)
    }
}

/// Reports how the body of a request was received.
type Sent = Pin<Box<dyn Future<Output = Result<(), HttpError>> + Send>>;

/// Answers one request. Returns its number once the body of the response is taken or given up.
async fn answer(
    accessor: &Accessor<PluginState>,
    service: &Service,
    requests: &Requests,
    task: Task,
) -> wasmtime::Result<u64> {
    let Task { id, request, room } = task;
    if !requests.begin(id) {
        return Ok(id);
    }
    let handle = service.wasi_http_handler().func_handle();
    let (call, sent) = accessor.with(|mut access| {
        let http = access.data_mut().http();
        let (request, sent) = Request::from_http(http.hooks, request);
        let sent: Sent = Box::pin(sent);
        let request = http.table.push(request)?;
        let call = handle.start_call_concurrent(access.as_context_mut(), (request,))?;
        wasmtime::error::Ok((call, sent))
    })?;
    let (returned,) = handle.finish_call_concurrent(accessor, call).await?;
    let Some(respond) = requests.respond(id) else {
        // It is overdue. What the plugin has returned stays in the table until the instance ends, which is soon.
        return Ok(id);
    };
    match returned {
        Ok(response) => {
            let (taken, is_taken) = oneshot::channel();
            let response = accessor.with(|mut access| {
                let response = access.data_mut().http().table.delete(response)?;
                response.into_http(access.as_context_mut(), sent)
            })?;
            let response = response.map(|body| FollowedBody { body, _room: room, _taken: taken }.boxed_unsync());
            if respond.send(Ok(response)).is_ok() {
                // Nothing is ever sent: the sender is dropped with the body.
                let _dropped = is_taken.await;
            }
        }
        Err(code) => {
            let _received = respond.send(Err(NoResponse::Returned(PluginError::Concurrent(code))));
        }
    }
    Ok(id)
}

/// The body of a response, whose end the instance waits for.
struct FollowedBody {
    body: WasiBody,
    _room: UsedRoom,
    _taken: oneshot::Sender<()>,
}

impl Body for FollowedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::pool::tests::{job, pool};
    use super::*;

    #[tokio::test]
    async fn an_instance_whose_task_panics_leaves_the_pool_and_fails_its_requests() {
        let pool = pool(1);
        let (first, mut ended) = job();
        let NewInstance { id, tasks: _tasks, load } = pool.assign(first).unwrap();
        let task = AssertUnwindSafe(|| {
            let (plugin, end) = ("plugin", EndReason::Stopped);
            let _member = Membership { pool: &pool, id, load: &load, plugin, end };
            panic!("on purpose");
        });
        assert!(catch_unwind(task).is_err());
        assert!(ended.try_recv().unwrap().is_err());
        assert!(pool.assign(job().0).is_some(), "a new instance");
    }
}
