//! A service of WASI 0.3 that opens a bucket of `wasmcloud:keyvalue` for each request, and answers with what the key `n` counts.

#![allow(missing_docs, unsafe_code, reason = "the generated bindings are undocumented and use raw pointers")]

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

mod keyvalue {
    wit_bindgen::generate!({
        path: "../../../host/runtime/foreign-wit/keyvalue-wasmcloud",
        world: "imports",
        generate_all,
    });
}

use keyvalue::wasmcloud::keyvalue::types::Error;
use keyvalue::wasmcloud::keyvalue::{atomics, store};

struct Counter;

wasip3::http::service::export!(Counter);

async fn count() -> Result<i64, Error> {
    let bucket = store::open(String::new()).await?;
    atomics::increment(&bucket, "n".to_owned(), 1).await
}

impl wasip3::exports::http::handler::Guest for Counter {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let text = format!("{:?}", count().await);
        let (mut writer, body) = wit_stream::new();
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
        spawn_local(async move {
            let _left = writer.write_all(text.into_bytes()).await;
        });
        Ok(response)
    }
}

fn main() {}
