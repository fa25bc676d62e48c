//! Requests of the plugin itself.

use futures_util::future::join_all;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme};
use wasip3::wit_future;

/// Sends a request to `AUTHORITY/PATH`, and tells the status or the error.
pub(crate) async fn fetch(target: &str) -> String {
    told(send(target, None).await.map(|response| response.get_status_code().to_string()))
}

/// Does `COUNT/AUTHORITY/PATH`: sends so many requests at the same time, and tells the outcome of each. Their bodies are read
/// after all have answered.
pub(crate) async fn crowd(query: &str) -> String {
    let (count, target) = query.split_once('/').unwrap_or(("0", query));
    let requests = (0..count.parse::<u64>().unwrap_or(0)).map(|_| send(target, None));
    let responses = join_all(requests).await;
    let mut lines: Vec<String> = Vec::new();
    for response in responses {
        lines.push(match response {
            Ok(response) => told(body(response).await),
            Err(error) => told(Err(error)),
        });
    }
    lines.sort();
    lines.join(" ")
}

/// Does `MILLISECONDS/AUTHORITY/PATH`: reads a response whose parts may take so long, and tells its length or the error.
pub(crate) async fn read(query: &str) -> String {
    let (milliseconds, target) = query.split_once('/').unwrap_or(("0", query));
    let timeout = milliseconds.parse::<u64>().unwrap_or(0).saturating_mul(1_000_000);
    match send(target, Some(timeout)).await {
        Ok(response) => told(body(response).await),
        Err(error) => told(Err(error)),
    }
}

fn told(outcome: Result<String, ErrorCode>) -> String {
    outcome.unwrap_or_else(|error| format!("{error:?}"))
}

/// The length of a body that is complete.
async fn body(response: Response) -> Result<String, ErrorCode> {
    let (_sent, failed) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Response::consume_body(response, failed);
    let bytes = stream.collect().await;
    trailers.await?;
    Ok(bytes.len().to_string())
}

async fn send(target: &str, timeout: Option<u64>) -> Result<Response, ErrorCode> {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let (ended, trailers) = wit_future::new(|| Ok(None));
    let options = RequestOptions::new();
    let are_set = [options.set_first_byte_timeout(timeout), options.set_between_bytes_timeout(timeout)];
    let (request, _sent) = Request::new(Fields::new(), None, trailers, Some(options));
    drop(ended);
    let set = [
        request.set_method(&Method::Get),
        request.set_scheme(Some(&Scheme::Http)),
        request.set_authority(Some(authority)),
        request.set_path_with_query(Some(&format!("/{path}"))),
    ];
    if are_set.iter().any(Result::is_err) || set.iter().any(Result::is_err) {
        return Err(ErrorCode::InternalError(Some("invalid".to_owned())));
    }
    client::send(request).await
}
