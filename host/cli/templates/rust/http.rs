//! Answers each request with a greeting of the name in its path, and caches each greeting for a minute.

use std::time::Duration;

use larder::Cache;
use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let name = match request.uri().path().trim_start_matches('/') {
        "" => "world",
        name => name,
    };
    let (greeting, how) =
        greeting(name).unwrap_or_else(|error| (format!("no greeting: {error}"), "an error"));
    Ok(Response::new(format!("{greeting} ({how})\n").into()))
}

/// Computes each greeting at most once a minute, for all requests and all processes that share the cache. Returns how it got
/// it, too.
fn greeting(name: &str) -> Result<(String, &'static str), larder::Error> {
    let mut how = "from the cache";
    let greeting = Cache::default()?.get_or_set(
        format!("greeting:{name}"),
        Duration::from_secs(60),
        || {
            how = "computed now";
            format!("Hello, {name}!")
        },
    )?;
    Ok((greeting, how))
}
