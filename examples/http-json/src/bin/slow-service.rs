//! The slow service of this example: `GET /service/2000000` counts the primes below 2000000, after a pause of one second.

use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let Some(below) = request.uri().path().strip_prefix("/service/").and_then(|below| below.parse().ok()) else {
        return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty())?);
    };
    println!("counting primes below {below}");
    wstd::task::sleep(wstd::time::Duration::from_secs(1)).await;
    let text = format!(r#"{{"below":{below},"primes":{}}}"#, primes(below));
    Ok(Response::builder().header("content-type", "application/json").body(text.into())?)
}

/// Counts the primes below a number by trial division, which is deliberately slow.
fn primes(below: u64) -> usize {
    let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..below).filter(is_prime).count()
}
