//! A JSON API over a slow service: `GET /primes/2000000` returns the number of primes below 2000000.
//!
//! All host processes together call the service at most once a minute for each number.

use std::time::Duration;

use larder::Cache;
use serde::{Deserialize, Serialize};
use wstd::http::{Body, Client, Error, Request, Response, StatusCode};

#[derive(Serialize, Deserialize)]
struct Count {
    below: u64,
    primes: u64,
}

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let Some(below) = request.uri().path().strip_prefix("/primes/").and_then(|below| below.parse().ok()) else {
        return answer(StatusCode::NOT_FOUND, &"try /primes/2000000");
    };
    let minute = Duration::from_secs(60);
    // Errors are not cached: the next request calls the service again.
    let count = Cache::default()?.try_get_or_set_async(format!("primes:{below}"), minute, || ask(below)).await;
    match count {
        Ok(count) => answer(StatusCode::OK, &count),
        Err(error) => {
            eprintln!("{error:?}");
            answer(StatusCode::BAD_GATEWAY, &"the service that counts primes is unreachable")
        }
    }
}

/// Calls the slow service.
async fn ask(below: u64) -> Result<Count, Error> {
    let service = std::env::var("SERVICE")?;
    let mut answer = Client::new().send(Request::get(format!("{service}/{below}")).body(Body::empty())?).await?;
    if answer.status() != StatusCode::OK {
        return Err(Error::msg(format!("the service answered {}", answer.status())));
    }
    answer.body_mut().json().await
}

fn answer(status: StatusCode, body: &impl Serialize) -> Result<Response<Body>, Error> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Body::from_json(body)?)?)
}
