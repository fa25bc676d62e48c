//! The loop over the requests of one instance, inside its store.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime::AsContextMut as _;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView as _};

use super::job::{NoResponse, Respond};
use super::membership::Membership;
use super::pool::{Task, UsedRoom};
use super::requests::Requests;
use crate::plugin_state::PluginState;
use crate::sandbox::Room;
use crate::serve::error_text::PluginError;
use crate::serve::instance_metrics::EndReason;

/// What the loop over the requests tells the bounds around it.
#[derive(Default)]
pub(super) struct Stage {
    /// True once the loop was polled: no call of the plugin holds the store.
    pub(super) was_polled: AtomicBool,
    /// True once the plugin has got a request.
    pub(super) has_begun: AtomicBool,
    /// The responses of this burst. They are handed out at its end: a short body is complete by then, and the connection is
    /// woken once.
    responses: Mutex<Vec<(Respond, Response<WasiBody>)>>,
}

impl Stage {
    fn responses(&self) -> MutexGuard<'_, Vec<(Respond, Response<WasiBody>)>> {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hand_out(&self) {
        for (respond, response) in self.responses().drain(..) {
            // The receiver is gone if the client is.
            let _received = respond.send(Ok(response));
        }
    }
}

/// The loop over the requests of an instance.
pub(super) struct Answering<'a> {
    pub(super) accessor: &'a Accessor<PluginState>,
    pub(super) service: &'a Service,
    pub(super) member: &'a Membership<'a>,
    pub(super) stage: &'a Stage,
    /// What the instance could still take after its first request.
    pub(super) first: Option<Room>,
}

impl Answering<'_> {
    /// Begins requests as they come. Returns once the instance is to answer no more and has answered all.
    pub(super) async fn until_end(mut self, tasks: &mut UnboundedReceiver<Task>) -> wasmtime::Result<EndReason> {
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
                        calls.push(answer(accessor, service, requests, stage, task));
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
    stage: &Stage,
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
            stage.responses().push((respond, response));
            // Nothing is ever sent: the sender is dropped with the body.
            let _dropped = is_taken.await;
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
