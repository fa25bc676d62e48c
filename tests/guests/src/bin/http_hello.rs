//! A plugin that answers every request alike, and imports no cache: what any host can serve.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    Ok(Response::new("hello\n".to_owned().into()))
}
