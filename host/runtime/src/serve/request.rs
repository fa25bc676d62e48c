//! One request: admitted, answered by a plugin in a sandbox of its own, and logged.

use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use metrics::{counter, histogram};
use tokio::sync::oneshot;
use tracing::field::Empty;
use tracing::{Instrument, Span, error_span};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use super::Shared;
use super::answer::Refusal;
use super::body::{Answer, left_unsent, limited};
use crate::body::Failure;
use crate::error::{Error, one_line};
use crate::metrics as listed;
use crate::runtime::{Console, Outcome, Plugin, RunOptions, State};
use crate::trace::{self, Joined, TraceContext};

/// How much of a plugin's own error the log has, in characters.
const MAX_ERROR: usize = 500;

/// A plugin that answers requests.
pub(super) struct Handler {
    plugin: Plugin,
    proxy: ProxyPre<State>,
}

impl Handler {
    pub(super) fn new(plugin: Plugin) -> Result<Self, Error> {
        let proxy = ProxyPre::new(plugin.pre().clone()).map_err(|_| {
            plugin.unfit("it exports no `wasi:http/incoming-handler` of WASI 0.2, so it answers no requests")
        })?;
        Ok(Self { plugin, proxy })
    }

    pub(super) fn plugin(&self) -> &Plugin {
        &self.plugin
    }
}

impl Shared {
    /// Answers a request, whatever becomes of it.
    pub(super) async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<WasiBody> {
        let handler = self.route(request.uri().path());
        let mut line = AccessLine::new(&request, handler.clone());
        let context = TraceContext::take(request.headers_mut());
        let begins_here = context.is_none();
        let span = line.span(context.as_ref());
        let Joined { passed_on: trace, is_exported } = trace::join(&span, context);
        if let Some(trace) = &trace {
            trace.put(request.headers_mut());
            line.trace_id = Some(trace.trace_id().to_owned());
            if begins_here {
                span.record("trace_id", trace.trace_id());
            }
        }
        let is_head = request.method() == Method::HEAD;
        let response = match handler {
            Some(handler) => self.ask(&handler, request, trace).instrument(span.clone()).await,
            None => Err(Refusal::NoRoute),
        };
        let response = response.unwrap_or_else(|refusal| {
            counter!(listed::REFUSALS.name, "reason" => refusal.name()).increment(1);
            refusal.response()
        });
        line.status = Some(response.status());
        // The log has it in the request's own line.
        if is_exported {
            span.record("http.response.status_code", response.status().as_u16());
            if response.status().is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
        }
        if is_head { response.map(left_unsent) } else { response }
    }

    /// The plugin's answer, as soon as its head is there.
    async fn ask(
        self: &Arc<Self>,
        handler: &Arc<Handler>,
        request: Request<Incoming>,
        trace: Option<TraceContext>,
    ) -> Result<Response<WasiBody>, Refusal> {
        let has_host = request.uri().authority().is_some()
            || request.headers().get(HOST).is_some_and(|host| host.to_str().is_ok());
        if !has_host {
            return Err(Refusal::InvalidHost);
        }
        let max = self.runtime.serve().max_request_body;
        if request.body().size_hint().lower() > max {
            return Err(Refusal::BodyTooLarge);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let request = request.map(|body| limited(body, max));
        let (respond, response) = oneshot::channel();
        let failure = Failure::default();
        // Decision: docs/decisions/0030-a-request-runs-in-a-task-of-its-own.md
        // In a task of its own: a plugin may go on after its answer, and a client that goes away does not cut off what
        // it does.
        let running = {
            let (shared, failure) = (Arc::clone(self), failure.clone());
            let handler = Arc::clone(handler);
            async move {
                let cut_off = async {
                    shared.cut_off.cancelled().await;
                    // While the plugin is there, as after a failure.
                    failure.set();
                };
                let ended = tokio::select! {
                    ended = shared.run(&handler, request, trace, respond, &failure) => ended,
                    () = cut_off => return Err(Refusal::Outcome),
                };
                ended.map_err(|error| {
                    tracing::error!("{}", one_line(&error.to_string()));
                    match error {
                        Error::Stopped { bound: "timeout", .. } => Refusal::TimedOut,
                        _ => Refusal::Failed,
                    }
                })
            }
        };
        let running = running.in_current_span();
        let running = tokio::spawn(async move {
            let ended = running.await;
            // After its span and all that is said of it: who has all permits may end the process.
            drop(permit);
            ended
        });
        match response.await {
            Ok(Ok(response)) => Ok(response.map(|body| Answer::new(body, failure).boxed_unsync())),
            Ok(Err(code)) => {
                // Its text is the plugin's, and as long as the plugin likes.
                let code: String = format!("{code:?}").chars().take(MAX_ERROR).collect();
                tracing::error!("plugin `{}` answered with an error: {code}", handler.plugin.name());
                Err(Refusal::Failed)
            }
            // It ended without an answer, and its end says why.
            Err(_) => match running.await {
                Ok(Ok(())) => {
                    tracing::error!("plugin `{}` gave no answer", handler.plugin.name());
                    Err(Refusal::Failed)
                }
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(Refusal::Failed),
            },
        }
    }

    /// Runs the plugin to its end.
    async fn run(
        &self,
        handler: &Handler,
        request: Request<WasiBody>,
        trace: Option<TraceContext>,
        respond: oneshot::Sender<Result<Response<WasiBody>, ErrorCode>>,
        failure: &Failure,
    ) -> Result<(), Error> {
        let Handler { plugin, proxy } = handler;
        let mut store = self.runtime.store(plugin, &RunOptions::default(), Console::Shared)?;
        store.data_mut().set_trace(trace);
        let handle = async |store: &mut Store<State>| {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let respond = store.data_mut().http().new_response_outparam(respond)?;
            let proxy = proxy.instantiate_async(&mut *store).await?;
            proxy.wasi_http_incoming_handler().call_handle(store, request, respond).await
        };
        let ended = self.runtime.within_bounds(plugin, &mut store, handle).await;
        // While the store is there, and with it the body that was not finished.
        if !matches!(ended, Ok(Outcome::Returned(()) | Outcome::Exited(0))) {
            failure.set();
        }
        match ended? {
            Outcome::Returned(()) | Outcome::Exited(0) => Ok(()),
            Outcome::Exited(status) => {
                let reason = format!("it exited with status {status} in mid-request");
                Err(Error::Trap { plugin: plugin.name().to_owned(), reason })
            }
        }
    }
}

/// A line of the access log, and what is told of the request: written when the head of the answer is on its way or the client has gone.
struct AccessLine {
    began: Instant,
    method: Method,
    path: String,
    handler: Option<Arc<Handler>>,
    status: Option<StatusCode>,
    trace_id: Option<String>,
}

impl AccessLine {
    fn new(request: &Request<Incoming>, handler: Option<Arc<Handler>>) -> Self {
        // Without the query, which may hold what is nobody's business.
        let path = one_line(request.uri().path());
        Self { began: Instant::now(), method: request.method().clone(), path, handler, status: None, trace_id: None }
    }

    fn plugin(&self) -> &str {
        self.handler.as_ref().map_or("-", |handler| handler.plugin.name())
    }

    /// The span of all that is done for the request. Its fields have the names of OpenTelemetry's conventions. It is there
    /// wherever errors are told, so that they say which request they happened in.
    fn span(&self, context: Option<&TraceContext>) -> Span {
        error_span!(
            target: "larder_host::request",
            "request",
            http.request.method = %self.method,
            url.path = self.path,
            plugin = self.plugin(),
            trace_id = context.map(TraceContext::trace_id),
            http.response.status_code = Empty,
            otel.kind = Empty,
            otel.status_code = Empty,
        )
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let plugin = self.plugin();
        let Self { began, method, path, status, trace_id, .. } = &*self;
        let class = status.map_or("gone", |status| match status.as_u16() {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        });
        counter!(listed::REQUESTS.name, "plugin" => plugin.to_owned(), "status" => class).increment(1);
        histogram!(listed::REQUEST_SECONDS.name, "plugin" => plugin.to_owned()).record(began.elapsed());
        // The macro looks at its arguments only where the line is wanted. It has all that its span has, and stands alone.
        tracing::info!(
            target: "larder_host::access",
            parent: None,
            %method,
            %path,
            status = status.map(|status| status.as_u16()),
            gone = status.is_none().then_some(true),
            milliseconds = began.elapsed().as_micros() as f64 / 1e3,
            plugin = %one_line(plugin),
            trace_id,
        );
    }
}
