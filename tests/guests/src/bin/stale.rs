//! Serves a value that takes half a second to compute, is fresh for a second and then stale for as long as the path says:
//! `/do/MODE/SECONDS`. A refresh is computed (`refresh`), is computed after the answer (`answer-first`), fails (`fail`) or
//! traps (`trap`); a missing value is computed. With `fresh` the value stays fresh for an hour.
//!
//! The answer is `COMPUTED MADE MICROSECONDS`: how many values this request has computed or begun to, when the value was
//! made in milliseconds since 1970, and how long the call took.

use std::time::{Duration, Instant, SystemTime};

use larder::{Cache, Freshness};
use larder_test_guests::trap;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Stale);

struct Stale;

const FRESH: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Guest for Stale {
    fn handle(request: IncomingRequest, respond: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let words: Vec<&str> = path.split('/').collect();
        let [.., mode, seconds] = words.as_slice() else { panic!("`{path}` is not /do/MODE/SECONDS") };
        let stale = Duration::from_secs(seconds.parse().expect("a number of seconds"));
        let began = Instant::now();
        let cache = Cache::default().expect("a default cache");
        let mut answered = Some(respond);
        let mut answer = |computed: u32, made: Option<&[u8]>| {
            let made = made.map_or("none".into(), |made| String::from_utf8_lossy(made));
            if let Some(respond) = answered.take() {
                send(respond, &format!("{computed} {made} {}", began.elapsed().as_micros()));
            }
        };
        let (key, duration) = if *mode == "fresh" { ("fresh", HOUR) } else { ("k", FRESH) };
        let (computed, made) = match cache.freshness(key, stale) {
            Ok(Freshness::Fresh(value) | Freshness::Stale { value, refresh: None }) => (0, Some(value)),
            Ok(Freshness::Stale { value, refresh: Some(refresh) }) => {
                if *mode == "answer-first" {
                    answer(1, Some(&value));
                }
                let made = compute();
                match *mode {
                    "refresh" | "answer-first" => {
                        let is_stored = refresh.fill_stale(&made, FRESH, stale).unwrap_or(false);
                        (1, Some(if is_stored { made } else { value }))
                    }
                    "fail" => (1, Some(value)),
                    _ => trap(),
                }
            }
            Ok(Freshness::Vacant(_)) if *mode == "fail" => (1, None),
            Ok(Freshness::Vacant(vacancy)) => {
                let made = compute();
                let _stored = vacancy.fill_stale(&made, duration, stale);
                (1, Some(made))
            }
            Err(error) => panic!("{error}"),
        };
        answer(computed, made.as_deref());
    }
}

/// The time at which the computation began, in milliseconds since 1970: then the source had the value.
fn compute() -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    std::thread::sleep(Duration::from_millis(500));
    now.as_millis().to_string().into_bytes()
}

fn send(respond: ResponseOutparam, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the first call");
    ResponseOutparam::set(respond, Ok(response));
    let stream = body.write().expect("the first call");
    stream.blocking_write_and_flush(text.as_bytes()).expect("the client reads");
    drop(stream);
    OutgoingBody::finish(body, None).expect("no length was promised");
}

fn main() {}
