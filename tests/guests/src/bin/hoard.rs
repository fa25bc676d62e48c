//! Serves requests by making the host hold or copy as much as it can: the path names the attack, and two numbers.

use std::mem::forget;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::random::random::{get_random_bytes, get_random_u64};
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

wasip2::http::proxy::export!(Hoard);

struct Hoard;

/// An hour, in nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

impl Guest for Hoard {
    fn handle(request: IncomingRequest, respond: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let mut words = path.rsplit_once("/do/").map_or("", |(_, words)| words).split('/');
        let attack = words.next().unwrap_or_default().to_owned();
        let mut number = || words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let (count, bytes): (usize, usize) = (number(), number());
        if attack == "error-text" {
            let text = "\u{1}".repeat(bytes);
            return ResponseOutparam::set(respond, Err(ErrorCode::InternalError(Some(text))));
        }
        let done = hoard(&attack, count, bytes, &request);
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(respond, Ok(response));
        let stream = body.write().expect("the stream is taken once");
        stream.blocking_write_and_flush(format!("{done}\n").as_bytes()).expect("the client reads");
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body has no length");
    }
}

/// Makes `count` calls with `bytes` each, and keeps what they create. Returns how many succeeded.
fn hoard(attack: &str, count: usize, bytes: usize, request: &IncomingRequest) -> usize {
    let value = || vec![b'x'; bytes];
    match attack {
        "nothing" => 0,
        "fields" => repeat(count, || {
            let fields = Fields::new();
            let is_set = fields.append("x", &value()).is_ok();
            forget(fields);
            is_set
        }),
        // As many fields with a name of their own as fit, which takes the host more memory than their texts.
        "short-fields" => repeat(count, || {
            let fields = Fields::new();
            let is_set = (0..bytes).all(|n| fields.append(&format!("x{n}"), b"").is_ok());
            forget(fields);
            is_set
        }),
        "list" => {
            let list = vec![("x".to_owned(), Vec::new()); bytes];
            repeat(count, || Fields::from_list(&list).map(forget).is_ok())
        }
        // Copies of the request's own headers.
        "clones" => repeat(count, || {
            let copy = request.headers().clone();
            let is_copied = copy.delete("none").is_ok();
            forget(copy);
            is_copied
        }),
        "bodies" => repeat(count, || hold_response(Fields::new(), bytes)),
        "all" => all(count, bytes, false),
        "all-too-large" => all(count, bytes, true),
        "all-and-more" => {
            all(count, bytes, false).saturating_add(repeat(9_900, || hold_response(Fields::new(), 65_536)))
        }
        "requests" => repeat(count, || {
            let request = OutgoingRequest::new(Fields::new());
            let text = "x".repeat(bytes);
            let is_set = request.set_path_with_query(Some(&format!("/{text}"))).is_ok();
            let is_set = request.set_authority(Some(&text)).is_ok() || is_set;
            let is_set = request.set_method(&Method::Other(text)).is_ok() || is_set;
            forget(request);
            is_set
        }),
        "sent" => repeat(count, || {
            let request = OutgoingRequest::new(Fields::new());
            wasip2::http::outgoing_handler::handle(request, None).map(forget).is_ok()
        }),
        "pollables" => {
            let mut pollables: Vec<Pollable> = (1..count).map(|_| subscribe_duration(HOUR)).collect();
            pollables.push(subscribe_duration(0));
            let borrowed: Vec<&Pollable> = pollables.iter().collect();
            (0..bytes).map(|_| poll(&borrowed).len()).sum()
        }
        "one-pollable" => {
            let pollable = subscribe_duration(0);
            poll(&vec![&pollable; count]).len()
        }
        "random" => repeat(count, || get_random_bytes(u64::try_from(bytes).unwrap_or(u64::MAX)).len() == bytes),
        "sockets" => repeat(count, || create_tcp_socket(IpAddressFamily::Ipv4).map(forget).is_ok()),
        // Uses all the memory that the plugin itself may have.
        "grow" => {
            let mut held = Vec::new();
            while held.try_reserve(held.len().saturating_add(65_536)).is_ok() {
                held.resize(held.capacity(), 1_u8);
            }
            held.len()
        }
        // Touches this many bytes, and as much of the stack as is safe, and waits for this many milliseconds.
        "hold" => {
            let held = vec![1_u8; bytes];
            let depth = recurse(2_000);
            subscribe_duration(u64::try_from(count).unwrap_or(0).saturating_mul(1_000_000)).block();
            held.len().saturating_add(depth).min(1)
        }
        // Reads many keys in one call, whose values the host has to hold together.
        "get-many" => {
            let keys: Vec<String> = (0..count).map(|n| format!("k{n}")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let cache = larder::Cache::default().expect("there is a default cache");
            cache.get_many_bytes(&keys).map_or(0, |found| found.iter().flatten().count())
        }
        other => panic!("no such attack: {other}"),
    }
}

/// Keeps the vacancy, if it is one.
fn hold_vacancy(entry: larder::Entry) -> bool {
    let is_vacant = matches!(entry, larder::Entry::Vacant(_));
    forget(entry);
    is_vacant
}

/// Makes a response whose body is written in parts of `bytes` until the host takes no more, and keeps it unsent.
fn hold_response(fields: Fields, bytes: usize) -> bool {
    let response = OutgoingResponse::new(fields);
    let body = response.body().expect("the body is taken once");
    let stream = body.write().expect("the stream is taken once");
    let mut is_written = false;
    while let Ok(permit @ 1..) = stream.check_write() {
        let permit = usize::try_from(permit).unwrap_or(usize::MAX);
        is_written = stream.write(&vec![b'x'; permit.min(bytes)]).is_ok();
    }
    drop(stream);
    forget(body);
    forget(response);
    is_written
}

/// Uses at the same time what the host holds of each kind for a plugin whose `max_memory` is this many MiB, with this
/// many responses, and the plugin's own memory. Then makes the largest calls, after some that are too large if
/// `is_too_large`. Returns 1 if all others succeeded.
fn all(responses: usize, mib: usize, is_too_large: bool) -> usize {
    const PAGE: usize = 1 << 16;
    let max_memory = mib << 20;
    // The largest value of a server.
    let large = max_memory / 8;
    let (opened, claimed, waiting) = ((mib * 56).min(900), (mib * 12).min(200), (mib * 56).min(8_000));
    let cache = larder::Cache::default().expect("there is a default cache");
    let handles = repeat(opened, || larder::Cache::default().map(forget).is_ok());
    // Keys of this instance alone: another one would wait for the value.
    let (instance, mut n) = (get_random_u64(), 0_usize);
    let mut claim = || {
        n = n.saturating_add(1);
        cache.entry(format!("{instance}-{n}"))
    };
    let to_fill = claim();
    let vacancies = repeat(claimed, || matches!(claim().map(hold_vacancy), Ok(true)));
    let fields_of_each = (mib << 11).clamp(4 << 10, 16 << 10) / 80;
    let held = repeat(responses, || {
        let fields = Fields::new();
        let is_set = (0..fields_of_each).all(|n| fields.append(&format!("x{n}"), b"").is_ok());
        hold_response(fields, PAGE) && is_set
    });
    let pollables = repeat(waiting, || {
        forget(subscribe_duration(HOUR));
        true
    });
    let mut own = Vec::new();
    let mut page = Vec::new();
    while page.try_reserve_exact(PAGE).is_ok() {
        page.resize(PAGE, 1_u8);
        own.push(std::mem::take(&mut page));
    }
    // The memory stays the plugin's, and has room for what the calls take and return.
    drop(own);
    let random = (max_memory / 16).min(1 << 20);
    let part = vec![b'x'; large / 16 - 1000];
    let entries = |count: usize| (0..count).map(|n| (format!("part{n}"), &part[..])).collect::<Vec<_>>();
    let refused = match is_too_large {
        true => {
            let value = vec![b'x'; 2 * large];
            [cache.set_bytes("large", &value), cache.set_many_bytes(&entries(32), larder::Duration::Default)]
                .iter()
                .all(Result::is_err)
        }
        false => true,
    };
    let value = vec![b'x'; large];
    let entries = entries(16);
    let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    let is_filled = match to_fill {
        Ok(larder::Entry::Vacant(vacancy)) => vacancy.fill(&value, larder::Duration::Default).unwrap_or(false),
        _ => false,
    };
    let calls = [
        get_random_bytes(u64::try_from(random).unwrap_or(0)).len() == random,
        is_filled,
        cache.set_bytes("large", &value).is_ok(),
        cache.get_bytes("large").is_ok_and(|found| found.is_some_and(|found| found.len() == large)),
        cache.set_many_bytes(&entries, larder::Duration::Default).is_ok(),
        cache.get_many_bytes(&keys).is_ok_and(|found| found.iter().flatten().count() == 16),
        refused,
    ];
    assert_eq!((handles, vacancies, held, pollables, calls), (opened, claimed, responses, waiting, [true; 7]));
    1
}

fn recurse(left: usize) -> usize {
    let frame = std::hint::black_box([left; 16]);
    if left == 0 { 0 } else { recurse(left.saturating_sub(1)).saturating_add(frame[0] & 1) }
}

fn repeat(count: usize, call: impl FnMut() -> bool) -> usize {
    std::iter::repeat_with(call).take(count).filter(|is_ok| *is_ok).count()
}

fn main() {
    unreachable!("the plugin serves requests");
}
