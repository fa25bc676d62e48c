//! A plugin's own HTTP requests, which go nowhere.

use http_body_util::BodyExt;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

/// What a store holds of HTTP.
#[derive(Debug, Default)]
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

impl Http {
    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { ctx: &mut self.ctx, table, hooks: &mut self.hooks }
    }
}

/// How much of an answer is under way at a time, in bytes: many plugins answer at once.
const CHUNK: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Hooks;

type Sent = (hyper::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    /// Denied once the body is there: a plugin that is still writing it would see a broken connection, and not why.
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            Err(Error::HttpRequestDenied)
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    /// A client that goes away in mid-request is no news.
    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        tracing::debug!("a request broke off: {error}");
        ErrorCode::HttpProtocolError
    }
}
