//! A service of WASI 0.3: one instance answers many requests at the same time. A page takes two seconds to render; meanwhile
//! the instance answers all requests for pages that are in the cache.

#![allow(unsafe_code, reason = "the generated export uses raw pointers")]

use std::time::Duration;

use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

struct Service;

wasip3::http::service::export!(Service);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match page(&path).await {
            Ok(page) => Ok(respond(page)),
            Err(error) => Err(ErrorCode::InternalError(Some(error.to_string()))),
        }
    }
}

async fn page(path: &str) -> Result<String, larder::Error> {
    let cache = larder::concurrent::Cache::default()?;
    cache.get_or_set(path, Duration::from_secs(60), async || render(path).await).await
}

/// Renders a page, which is deliberately slow.
async fn render(path: &str) -> String {
    println!("rendering {path}");
    wait_for(2_000_000_000).await;
    format!("<h1>{path}</h1>\n")
}

/// A response whose body is written after it is returned.
fn respond(page: String) -> Response {
    let (mut writer, body) = wit_stream::new();
    let (ended, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    drop(ended);
    spawn_local(async move {
        // What is left if the client has gone.
        let _left = writer.write_all(page.into_bytes()).await;
    });
    response
}
