//! Executes one cache operation for each HTTP request, so that several run at once in one process. The path holds the words
//! of the operation, separated by slashes, and the response is its result as text.
//!
//! The operations are `set K V MS`, `set-large K V`, `get-or-set K V`, and those of `larder_test_guests::execute`. A large
//! value is padded with full stops, which a response leaves out.

use larder::{Cache, Duration, Entry, Error as CacheError};
use larder_test_guests::{format_error, format_value};
use wstd::http::{Body, Error, Request, Response};

/// More than the length up to which values are kept near and share a connection.
const LARGE: usize = 70_000;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let words: Vec<&str> = request.uri().path().trim_start_matches('/').split('/').collect();
    let result = Cache::default().and_then(|cache| execute(&cache, &words));
    let text = result.unwrap_or_else(|error| format_error(&error));
    Ok(Response::new(text.replace('.', "").into()))
}

fn execute(cache: &Cache, words: &[&str]) -> Result<String, CacheError> {
    Ok(match words {
        ["set", key, value, ms] => {
            let duration = Duration::Milliseconds(ms.parse().expect("a number of milliseconds"));
            cache.set_bytes_with_duration(key, value.as_bytes(), duration).map(|()| "ok".to_owned())?
        }
        ["set-large", key, value] => {
            let padded = format!("{value}{}", ".".repeat(LARGE));
            cache.set_bytes(key, padded.as_bytes()).map(|()| "ok".to_owned())?
        }
        ["get-or-set", key, value] => match cache.entry(key)? {
            Entry::Occupied(found) => format_value(Some(found)),
            Entry::Vacant(vacancy) => format!("filled {}", vacancy.fill(value.as_bytes(), Duration::Default)?),
        },
        words => larder_test_guests::execute(cache, words)?,
    })
}
