//! A service of WASI 0.3 that returns the same response to every request, and imports no cache, so any host can run it.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

struct Hello;

wasip3::http::service::export!(Hello);

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let (mut writer, body) = wit_stream::new();
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
        spawn_local(async move {
            let _left = writer.write_all(b"hello\n".to_vec()).await;
        });
        Ok(response)
    }
}

fn main() {}
