//! The handling of one request: admission, and the call of an instance of the plugin.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::{Method, Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument, Span};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use super::access_log::{AccessLine, count_refusal};
use super::answer::{Answer, Held};
use super::answer_body::AnswerBody;
use super::begin::{Begun, begin};
use super::concurrent::{Ending, Job, NoResponse, Respond, Waiting};
use super::connection::FollowedBody;
use super::error_response::ErrorResponse;
use super::error_text::{PluginError, error_text};
use super::handler::{Handler, Proxy};
use super::instances::Instance;
use super::request_body::limited;
use super::request_state::RequestState;
use super::state::{ServedRoute, ServerState};
use super::upload::Rule;
use super::{response, target};
use crate::error::Error;
use crate::plugin_body::{AbortFlag, PluginBody, drained};
use crate::plugin_state::PluginState;
use crate::runtime::Outcome;
use crate::trace::{self, Joined, TraceContext};

impl ServerState {
    /// Responds to a request: with the plugin's response, or an error response of the host.
    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<FollowedBody>,
        answer: Arc<Answer>,
    ) -> Response<AnswerBody> {
        let (mut head, body) = request.into_parts();
        let target = target::check(&mut head);
        let mut request = Request::from_parts(head, body);
        let route = target.and_then(|()| self.route(request.uri().path()).ok_or(ErrorResponse::NoRoute));
        let route = route.map(|route| (route, route.handler()));
        let mut line = AccessLine::new(&request, route.as_ref().ok().map(|(_, handler)| Arc::clone(handler)));
        let context = TraceContext::take(request.headers_mut());
        let begins_here = context.is_none();
        let span = line.span(context.as_ref());
        let Joined { context: trace, is_exported } = trace::join(&span, context);
        if let Some(trace) = &trace {
            trace.put(request.headers_mut());
            line.trace_id = Some(trace.trace_id().to_owned());
            if begins_here {
                span.record("trace_id", trace.trace_id());
            }
        }
        let is_head = request.method() == Method::HEAD;
        let response = match route {
            Ok((route, handler)) => self.call(route, &handler, request, trace, &answer).instrument(span.clone()).await,
            Err(error) => Err(error),
        };
        let (response, length) = response.unwrap_or_else(|error| {
            count_refusal(error);
            let permit = Arc::clone(&self.refusals).try_acquire_owned().ok();
            let response = error.response(permit.is_some());
            if let Some(permit) = permit {
                answer.hold(Held::Refusal { _permit: permit });
            }
            (if is_head { response.map(drained) } else { response }, None)
        });
        line.status = Some(response.status());
        // Recorded for exporters only: the access log has its own line.
        if is_exported {
            span.record("http.response.status_code", response.status().as_u16());
            if response.status().is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
        }
        let (head, body) = response.into_parts();
        let mut body = AnswerBody::new(body, answer, length);
        body.read_ahead().await;
        Response::from_parts(head, body)
    }

    /// Runs the plugin, and returns its response as soon as the head is set, with the length that its body must have.
    async fn call(
        self: &Arc<Self>,
        route: &ServedRoute,
        handler: &Arc<Handler>,
        request: Request<FollowedBody>,
        trace: Option<TraceContext>,
        answer: &Arc<Answer>,
    ) -> Result<(Response<WasiBody>, Option<u64>), ErrorResponse> {
        let max = self.runtime.serve().max_request_body;
        if request.body().size_hint().lower() > max {
            return Err(ErrorResponse::BodyTooLarge);
        }
        let admitted = self.admission.admit(&route.admission).inspect_err(|_| {
            self.crowd.note_refusal();
            self.connections.give_up_untaken(self.timeouts.crowded);
        })?;
        let shared = RequestState::new(admitted, answer);
        let method = request.method().clone();
        let rule = Rule { timeouts: self.timeouts, crowd: Arc::clone(&self.crowd) };
        let request = request.map(|body| limited(body, max, rule, answer, &shared));
        let (respond, response) = oneshot::channel();
        let abort = AbortFlag::default();
        let mut client = ClientGuard { request: &shared, is_here: false };
        let running = match &handler.proxy {
            Proxy::Sequential { .. } => Some(self.begin(handler, request, trace, respond, &abort, &shared).await),
            Proxy::Concurrent { .. } => {
                self.assign(handler, self.job(handler, request, respond, &abort, &shared));
                None
            }
        };
        let response = response.await;
        client.is_here = true;
        answer.hold(Held::Request(Arc::clone(&shared)));
        match response {
            Ok(Ok(response)) => {
                let response = response.map(|body| PluginBody::of_response(body, abort).boxed_unsync());
                response::checked(response, &method).map_err(|wrong| {
                    tracing::error!("plugin `{}` returned an invalid response: {wrong}", handler.plugin.name());
                    ErrorResponse::Failed
                })
            }
            Ok(Err(NoResponse::Ended(error))) => Err(error),
            Ok(Err(NoResponse::Returned(code))) => {
                let (name, code) = (handler.plugin.name(), error_text(code));
                if shared.may_be_the_clients_fault(false) {
                    tracing::warn!(
                        "plugin `{name}` returned an error after its client had gone, or did not send its part: {code}"
                    );
                } else {
                    tracing::error!("plugin `{name}` returned an error instead of a response: {code}");
                }
                Err(shared.failure())
            }
            // The plugin ended without a response. Its outcome has the reason.
            Err(_) => match running.ok_or(ErrorResponse::Failed)?.ended().await {
                Some(Ok(())) => {
                    let (name, failure) = (handler.plugin.name(), shared.failure());
                    if failure == ErrorResponse::Failed {
                        tracing::error!("plugin `{name}` sent no response");
                    } else {
                        tracing::warn!("plugin `{name}` sent no response after its client failed to send the body");
                    }
                    Err(failure)
                }
                Some(Err(error)) => Err(error),
                None => Err(ErrorResponse::Failed),
            },
        }
    }

    // Decision: docs/decisions/0030-a-request-runs-in-a-task-of-its-own.md
    /// Begins a run, which may continue after its response, and after the client has disconnected.
    async fn begin(
        self: &Arc<Self>,
        handler: &Arc<Handler>,
        request: Request<WasiBody>,
        trace: Option<TraceContext>,
        respond: Respond,
        abort: &AbortFlag,
        shared: &Arc<RequestState>,
    ) -> Begun<Result<(), ErrorResponse>> {
        let run = {
            let (state, abort) = (Arc::clone(self), abort.clone());
            let (handler, shared) = (Arc::clone(handler), Arc::clone(shared));
            async move {
                let cut_off = async {
                    state.cut_off.cancelled().await;
                    // Set before the plugin and its body are dropped.
                    abort.set();
                };
                let ended = tokio::select! {
                    // A run that does not wait takes no lock for this.
                    biased;
                    ended = state.run(&handler, request, trace, respond, &abort) => ended,
                    () = cut_off => return Err(ErrorResponse::ShuttingDown),
                };
                ended.map_err(|error| shared.failed(&error))
            }
        };
        // The request is dropped after it is logged and its span is closed: shutdown waits for it.
        begin(run, Arc::clone(shared), || self.runtime.is_calm()).await
    }

    /// The request as an instance of WASI 0.3 gets it, beside others.
    fn job(
        self: &Arc<Self>,
        handler: &Handler,
        request: Request<WasiBody>,
        respond: Respond,
        abort: &AbortFlag,
        shared: &Arc<RequestState>,
    ) -> Job {
        let now = Instant::now();
        let deadline = now.checked_add(self.runtime.timeout()).unwrap_or(now);
        let run = handler.plugin.metrics().begin();
        let (state, shared, span) = (Arc::clone(self), Arc::clone(shared), Span::current());
        let ending: Ending = Box::new(move |ended| {
            let response = span.in_scope(|| match ended {
                Err(_) if state.cut_off.is_cancelled() => Some(ErrorResponse::ShuttingDown),
                ended => {
                    run.end(match &ended {
                        Ok(()) => "returned",
                        Err(Error::Stopped { limit, .. }) => limit,
                        Err(_) => "trapped",
                    });
                    ended.err().map(|error| shared.failed(&error))
                }
            });
            // As after a run: the request last.
            drop(span);
            drop(shared);
            response
        });
        Job { request, waiting: Waiting { deadline, respond, ending, abort: abort.clone() } }
    }

    /// Runs the plugin to its end.
    async fn run(
        self: &Arc<Self>,
        handler: &Arc<Handler>,
        request: Request<WasiBody>,
        trace: Option<TraceContext>,
        respond: Respond,
        abort: &AbortFlag,
    ) -> Result<(), Error> {
        let Handler { plugin, proxy: Proxy::Sequential { pre: component, instances }, .. } = &**handler else {
            return Ok(());
        };
        let mut instance = self.instance(handler).await?;
        let Instance { store, proxy, .. } = &mut instance;
        store.data_mut().set_trace(trace);
        let handle = async |store: &mut Store<PluginState>| {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let respond = store.data_mut().http().new_response_outparam_from_callback(move |response| {
                // The receiver is gone if the client is.
                let _received =
                    respond.send(response.map_err(|code| NoResponse::Returned(PluginError::Sequential(code))));
            })?;
            let proxy = match proxy {
                Some(proxy) => proxy,
                None => proxy.insert(component.instantiate_async(&mut *store).await?),
            };
            proxy.wasi_http_incoming_handler().call_handle(store, request, respond).await
        };
        let ended = self.runtime.within_limits(plugin, store, handle).await;
        // Set before the store and the unfinished body in it are dropped.
        if !matches!(ended, Ok(Outcome::Returned(()) | Outcome::Exited(0))) {
            abort.set();
        }
        // Dropped, unless its call has returned: after anything else its state is not known.
        if let (Some(instances), Ok(Outcome::Returned(()))) = (instances, &ended) {
            instances.give_back(instance);
        }
        match ended? {
            Outcome::Returned(()) | Outcome::Exited(0) => Ok(()),
            Outcome::Exited(status) => {
                let reason = format!("it exited with status {status} during a request");
                Err(Error::Trap { plugin: plugin.name().to_owned(), reason })
            }
        }
    }
}

/// Notes that the client is gone if it is dropped before the response has a head.
struct ClientGuard<'a> {
    request: &'a RequestState,
    is_here: bool,
}

impl Drop for ClientGuard<'_> {
    fn drop(&mut self) {
        if !self.is_here {
            self.request.client_is_gone();
        }
    }
}
