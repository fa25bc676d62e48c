//! A plugin that returns the same response to every request, and imports no cache, so any host can run it.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    Ok(Response::new("hello\n".to_owned().into()))
}
