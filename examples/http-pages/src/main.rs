//! A plugin that serves HTML pages over HTTP, and renders each page at most once a minute.

use std::time::Duration;

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path();
    let cache = larder::Cache::default()?;
    let page: String = cache.get_or_set(path, Duration::from_secs(60), || render(path))?;
    Ok(Response::new(page.into()))
}

/// Renders a page, which is deliberately slow.
fn render(path: &str) -> String {
    println!("rendering {path}");
    std::thread::sleep(Duration::from_millis(500));
    format!("<h1>{path}</h1>\n")
}
