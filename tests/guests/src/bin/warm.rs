//! Serves requests, and keeps things between them: the path names what, and a number or a key.
//!
//! Each response begins with the instance's number, which is random, and how many requests it has handled.

use std::cell::{Cell, RefCell};
use std::mem::forget;

use larder::{Cache, Duration, Entry, Vacancy};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::random::random::get_random_u64;

wasip2::http::proxy::export!(Warm);

struct Warm;

thread_local! {
    static NUMBER: u64 = get_random_u64();
    static HANDLED: Cell<u64> = const { Cell::new(0) };
    static VACANCY: RefCell<Option<Vacancy>> = const { RefCell::new(None) };
}

impl Guest for Warm {
    fn handle(request: IncomingRequest, respond: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let words = path.rsplit_once("/do/").map_or(path.trim_start_matches('/'), |(_, words)| words);
        let (what, argument) = words.split_once('/').unwrap_or((words, ""));
        HANDLED.set(HANDLED.get().saturating_add(1));
        let number = || argument.parse::<usize>().expect("a number");
        let said = match what {
            "count" => String::new(),
            // Keeps empty sets of fields.
            "fields" => {
                (0..number()).for_each(|_| forget(Fields::new()));
                String::new()
            }
            // Keeps open handles of the cache. Returns how many it got.
            "handles" => (0..number()).filter(|_| Cache::default().map(forget).is_ok()).count().to_string(),
            // Keeps this many KiB of memory.
            "memory" => {
                forget(vec![1_u8; number().saturating_mul(1024)]);
                String::new()
            }
            // Takes the vacancy of a key, and neither fills nor drops it.
            "vacancy" => match Cache::default().and_then(|cache| cache.entry(argument)) {
                Ok(Entry::Vacant(vacancy)) => {
                    VACANCY.set(Some(vacancy));
                    "vacant".to_owned()
                }
                Ok(Entry::Occupied(value)) => String::from_utf8_lossy(&value).into_owned(),
                Err(error) => format!("{error:?}"),
            },
            // Fills the vacancy that an earlier request has kept. Returns whether the value was stored.
            "fill" => {
                let vacancy = VACANCY.take().expect("a request has kept it");
                format!("{:?}", vacancy.fill(b"late", Duration::Default))
            }
            // Drops that vacancy.
            "drop" => {
                drop(VACANCY.take().expect("a request has kept it"));
                String::new()
            }
            // Sends a request to this address, and keeps it unanswered.
            "request" => {
                let request = OutgoingRequest::new(Fields::new());
                request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
                request.set_authority(Some(argument)).expect("an authority");
                request.set_path_with_query(Some("/")).expect("a path");
                forget(outgoing_handler::handle(request, None).expect("the request is allowed"));
                String::new()
            }
            // Reads nothing of the body of the request, and keeps it.
            "unread" => {
                forget(request.consume().expect("the body is taken once"));
                String::new()
            }
            // Keeps the head of the request.
            "head" => {
                forget(request);
                String::new()
            }
            "unfinished" => String::new(),
            "silent" => return forget(respond),
            other => panic!("no such thing: {other}"),
        };
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(respond, Ok(response));
        let stream = body.write().expect("the stream is taken once");
        let text = NUMBER.with(|number| format!("{number:x} {} {said}\n", HANDLED.get()));
        stream.blocking_write_and_flush(text.as_bytes()).expect("the client reads");
        if what == "unfinished" {
            forget(stream);
            return forget(body);
        }
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body has no length");
    }
}

fn main() {
    unreachable!("the plugin serves requests");
}
