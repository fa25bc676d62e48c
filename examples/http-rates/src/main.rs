//! A plugin that answers HTTP requests at once with a value that may be stale, and computes the next one afterwards.

use std::time::{Duration, SystemTime};

use larder::Cache;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Rates);

struct Rates;

impl Guest for Rates {
    fn handle(_request: IncomingRequest, respond: ResponseOutparam) {
        let (duration, stale) = (Duration::from_secs(1), Duration::from_secs(60));
        let found = Cache::default().and_then(|cache| cache.get_then_refresh("rates", duration, stale, fetch_rates));
        match found {
            Ok((rates, refresh)) => {
                answer(respond, 200, &rates);
                // The client has its answer. The request goes on until the plugin has ended.
                if let Some(refresh) = refresh
                    && let Err(error) = refresh.store(&fetch_rates())
                {
                    eprintln!("the rates are not stored: {error}");
                }
            }
            Err(error) => answer(respond, 500, &error.to_string()),
        }
    }
}

/// Asks the source of the rates, which is deliberately slow.
fn fetch_rates() -> String {
    println!("fetching the rates");
    std::thread::sleep(Duration::from_millis(500));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("1.08 at {}\n", now.as_millis())
}

/// Sends the whole response.
fn answer(respond: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    if response.set_status_code(status).is_err() {
        return;
    }
    let body = response.body();
    ResponseOutparam::set(respond, Ok(response));
    if let Ok(body) = body
        && let Ok(stream) = body.write()
    {
        // The client may have gone; then there is no one to answer.
        let _sent = stream.blocking_write_and_flush(text.as_bytes());
        drop(stream);
        let _finished = OutgoingBody::finish(body, None);
    }
}

fn main() {}
