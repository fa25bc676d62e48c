//! The handling of one request: admission, and the run of the plugin in a sandbox of its own.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use metrics::counter;
use tokio::sync::oneshot;
use tracing::Instrument;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use super::access_log::AccessLine;
use super::error_response::ErrorResponse;
use super::handler::Handler;
use super::request_body::limited;
use super::state::{ServedRoute, ServerState};
use crate::cache::text::one_line;
use crate::error::Error;
use crate::metrics::REFUSALS;
use crate::plugin_body::{AbortFlag, PluginBody, drained};
use crate::plugin_state::PluginState;
use crate::runtime::{Console, Outcome, RunOptions};
use crate::trace::{self, Joined, TraceContext};

/// The longest text of a plugin's error in the log, in characters.
const MAX_ERROR_TEXT: usize = 500;

impl ServerState {
    /// Responds to a request: with the plugin's response, or an error response of the host.
    pub(super) async fn respond(self: Arc<Self>, mut request: Request<Incoming>) -> Response<WasiBody> {
        let route = self.route(request.uri().path()).map(|route| (route, route.handler()));
        let mut line = AccessLine::new(&request, route.as_ref().map(|(_, handler)| Arc::clone(handler)));
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
            Some((route, handler)) => self.call(route, &handler, request, trace).instrument(span.clone()).await,
            None => Err(ErrorResponse::NoRoute),
        };
        let response = response.unwrap_or_else(|error| {
            counter!(REFUSALS.name, "reason" => error.name()).increment(1);
            error.response()
        });
        line.status = Some(response.status());
        // Recorded for exporters only: the access log has its own line.
        if is_exported {
            span.record("http.response.status_code", response.status().as_u16());
            if response.status().is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
        }
        if is_head { response.map(drained) } else { response }
    }

    /// Runs the plugin, and returns its response as soon as the head is set.
    async fn call(
        self: &Arc<Self>,
        route: &ServedRoute,
        handler: &Arc<Handler>,
        request: Request<Incoming>,
        trace: Option<TraceContext>,
    ) -> Result<Response<WasiBody>, ErrorResponse> {
        let has_host = request.uri().authority().is_some()
            || request.headers().get(HOST).is_some_and(|host| host.to_str().is_ok());
        if !has_host {
            return Err(ErrorResponse::InvalidHost);
        }
        let max = self.runtime.serve().max_request_body;
        if request.body().size_hint().lower() > max {
            return Err(ErrorResponse::BodyTooLarge);
        }
        let admitted = self.admission.admit(&route.admission)?;
        let request = request.map(|body| limited(body, max));
        let (respond, response) = oneshot::channel();
        let abort = AbortFlag::default();
        // Decision: docs/decisions/0030-a-request-runs-in-a-task-of-its-own.md
        // In a task of its own: a plugin may continue after its response, and after the client has disconnected.
        let running = {
            let (state, abort) = (Arc::clone(self), abort.clone());
            let handler = Arc::clone(handler);
            async move {
                let cut_off = async {
                    state.cut_off.cancelled().await;
                    // Set before the plugin and its body are dropped.
                    abort.set();
                };
                let ended = tokio::select! {
                    ended = state.run(&handler, request, trace, respond, &abort) => ended,
                    () = cut_off => return Err(ErrorResponse::ShuttingDown),
                };
                ended.map_err(|error| {
                    tracing::error!("{}", one_line(&error.to_string()));
                    match error {
                        Error::Stopped { limit: "timeout", .. } => ErrorResponse::TimedOut,
                        _ => ErrorResponse::Failed,
                    }
                })
            }
        };
        let running = running.in_current_span();
        let running = tokio::spawn(async move {
            let ended = running.await;
            // Dropped after the request is logged and its span is closed: shutdown waits for it.
            drop(admitted);
            ended
        });
        match response.await {
            Ok(Ok(response)) => Ok(response.map(|body| PluginBody::of_response(body, abort).boxed_unsync())),
            Ok(Err(code)) => {
                // The plugin chooses the text and its length.
                let code: String = format!("{code:?}").chars().take(MAX_ERROR_TEXT).collect();
                tracing::error!("plugin `{}` returned an error instead of a response: {code}", handler.plugin.name());
                Err(ErrorResponse::Failed)
            }
            // The plugin ended without a response. Its outcome has the reason.
            Err(_) => match running.await {
                Ok(Ok(())) => {
                    tracing::error!("plugin `{}` sent no response", handler.plugin.name());
                    Err(ErrorResponse::Failed)
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(ErrorResponse::Failed),
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
        abort: &AbortFlag,
    ) -> Result<(), Error> {
        let Handler { plugin, proxy } = handler;
        let mut store = self.runtime.store(plugin, &RunOptions::default(), Console::Prefixed)?;
        store.data_mut().set_trace(trace);
        let handle = async |store: &mut Store<PluginState>| {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let respond = store.data_mut().http().new_response_outparam(respond)?;
            let proxy = proxy.instantiate_async(&mut *store).await?;
            proxy.wasi_http_incoming_handler().call_handle(store, request, respond).await
        };
        let ended = self.runtime.within_limits(plugin, &mut store, handle).await;
        // Set before the store and the unfinished body in it are dropped.
        if !matches!(ended, Ok(Outcome::Returned(()) | Outcome::Exited(0))) {
            abort.set();
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
