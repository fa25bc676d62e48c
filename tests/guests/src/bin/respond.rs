//! A plugin whose response is what the query asks for, and that tells what it received.
//!
//! `/see` returns the method, the URI, the number of headers and the body of the request. `/respond` takes
//! `status=N`, `header=NAME:VALUE`, any number of `piece=N` for a piece of the body of N bytes, and `then=panic`.
//! `/fail` returns an error instead of a response, with a text of `N` bytes.

use futures_util::stream;
use wstd::http::body::{Body, Bytes};
use wstd::http::{Error, Request, Response};

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let uri = request.uri().clone();
    let query: Vec<(String, String)> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match uri.path() {
        "/see" => {
            let (method, headers) = (request.method().clone(), request.headers().len());
            let body = match request.body_mut().contents().await {
                Ok(body) => format!("{} bytes", body.len()),
                Err(_) => "broken".to_owned(),
            };
            Ok(Response::new(format!("{method} {uri} {headers} headers, {body}\n").into()))
        }
        "/fail" => Err(Error::msg("x".repeat(number(uri.query().expect("a length"))))),
        "/respond" => {
            let values = |wanted: &'static str| {
                query.iter().filter(move |(key, _)| key == wanted).map(|(_, value)| value.clone()).collect::<Vec<_>>()
            };
            let mut response = Response::builder();
            for status in values("status") {
                response = response.status(status.parse::<u16>().expect("a status"));
            }
            for header in values("header") {
                let (name, value) = header.split_once(':').expect("a name and a value");
                response = response.header(name, value);
            }
            let panics = !values("then").is_empty();
            let mut pieces = values("piece").into_iter();
            let body = stream::iter(std::iter::from_fn(move || match pieces.next() {
                Some(len) => Some(Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; len.parse().expect("a length")]))),
                None if panics => panic!("after the body"),
                None => None,
            }));
            Ok(response.body(Body::from_try_stream(body))?)
        }
        _ => Ok(Response::new("hello\n".to_owned().into())),
    }
}
