//! Answers HTTP requests with `wasi:keyvalue@0.2.0-draft2`: each opens a bucket and answers with what the key `n` counts.

#![allow(missing_docs, unsafe_code, reason = "the generated bindings are undocumented and use raw pointers")]

use std::sync::atomic::{AtomicU32, Ordering};

use wstd::http::{Body, Error, Request, Response};

wit_bindgen::generate!({
    path: "../../../host/runtime/foreign-wit/keyvalue-draft2",
    world: "imports",
    generate_all,
});

use wasi::keyvalue::{atomics, store};

/// The number of requests that this instance has answered.
static ANSWERED: AtomicU32 = AtomicU32::new(0);

fn count() -> Result<i64, store::Error> {
    let bucket = store::open("")?;
    let seen = atomics::Cas::new(&bucket, "n")?;
    drop(seen);
    atomics::increment(&bucket, "n", 1)
}

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    let answered = ANSWERED.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(Response::new(format!("{answered}: {:?}", count()).into()))
}
