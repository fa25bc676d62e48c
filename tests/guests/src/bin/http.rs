//! A plugin that answers HTTP requests. The last part of the path names the operation, with an optional argument.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{future, stream};
use larder::Freshness;
use wstd::future::FutureExt;
use wstd::http::body::{Body, Bytes};
use wstd::http::{Client, Error, Request, Response, StatusCode};
use wstd::time::Duration;

/// The number of requests that this instance has answered.
static ANSWERED: AtomicU32 = AtomicU32::new(0);

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let (_, operation) = path.rsplit_once("/do/").unwrap_or(("", path.trim_start_matches('/')));
    let (operation, argument) = operation.split_once('/').unwrap_or((operation, ""));
    let number = || argument.parse().expect("a number");
    let text = match operation {
        "hello" => "hello\n".to_owned(),
        "where" => format!("{} {}", request.uri(), request.method()),
        // Returns all values of the header with this name.
        "header" => {
            let values = request.headers().get_all(argument).iter();
            values.map(|value| value.to_str().expect("text")).collect::<Vec<_>>().join(" | ")
        }
        "env" => std::env::var(argument).unwrap_or_default(),
        "echo" => return Ok(Response::new(request.into_body())),
        // Returns the length of the body, or that it ended early.
        "length" => match request.into_body().contents().await {
            Ok(body) => body.len().to_string(),
            Err(error) => format!("broke off: {error:?}"),
        },
        "instance" => ANSWERED.fetch_add(1, Ordering::Relaxed).saturating_add(1).to_string(),
        "visit" => {
            let cache = larder::Cache::default()?;
            let visits = cache.get::<u64>(argument)?.unwrap_or(0).saturating_add(1);
            cache.set(argument, &visits)?;
            visits.to_string()
        }
        // Looks up a key and one that has no value in one call. Returns how many have a value.
        "many" => {
            let found = larder::Cache::default()?.get_many::<u64>(&[argument, "no value"])?;
            found.iter().flatten().count().to_string()
        }
        // A get-or-set that computes for 200 ms. Returns the value and whether this request computed it.
        "compute" => {
            let mut is_computed = false;
            let cache = larder::Cache::default()?;
            let value = cache
                .get_or_set_async(argument, larder::Duration::Default, async || {
                    is_computed = true;
                    wstd::task::sleep(Duration::from_millis(200)).await;
                    argument.to_owned()
                })
                .await?;
            format!("{value} {is_computed}")
        }
        // A get-or-refresh for which every value is stale. Returns whether this request computed one.
        "refresh" => {
            let [minute, hour] = [60_000, 3_600_000].map(larder::Duration::Milliseconds);
            match larder::Cache::default()?.freshness(argument, hour)? {
                Freshness::Vacant(vacancy) | Freshness::Stale { refresh: Some(vacancy), .. } => {
                    vacancy.fill(argument.as_bytes(), minute)?.to_string()
                }
                Freshness::Fresh(_) | Freshness::Stale { refresh: None, .. } => false.to_string(),
            }
        }
        // A get-or-set that computes for an hour.
        "hold" => {
            let hour = Duration::from_secs(3600);
            let compute = async || {
                wstd::task::sleep(hour).await;
                String::new()
            };
            larder::Cache::default()?.get_or_set_async(argument, larder::Duration::Default, compute).await?
        }
        "sleep" => {
            wstd::task::sleep(Duration::from_millis(number())).await;
            "slept".to_owned()
        }
        // Prints that it has started, and sleeps.
        "doze" => {
            println!("dozing");
            wstd::task::sleep(Duration::from_millis(number())).await;
            "dozed".to_owned()
        }
        // Prints that it has started, and reads the request's body to its end.
        "attend" => {
            println!("attending");
            request.into_body().contents().await?;
            "attended".to_owned()
        }
        "print" => {
            println!("out {argument}");
            eprint!("no end of a line");
            "printed".to_owned()
        }
        // Returns a body of this many chunks of 1 KiB.
        "pieces" => return Ok(pieces(number(), || None)),
        // The same, but panics instead of ending the body.
        "cut" => return Ok(pieces(number(), || panic!("in mid-answer"))),
        // Returns this many chunks of 1 KiB, and then pauses for an hour.
        "hang" => {
            let count = number();
            return Ok(Response::new(Body::from_try_stream(stream::unfold(0, move |n: u64| async move {
                if n == count {
                    wstd::task::sleep(Duration::from_secs(3600)).await;
                }
                Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1024])), n.saturating_add(1)))
            }))));
        }
        "panic" => panic!("on request"),
        "spin" => loop {
            std::hint::black_box(0);
        },
        // Asks the host for this many random bytes, again and again.
        "random" => {
            let mut bytes = vec![0; number().try_into().expect("a length")];
            loop {
                wstd::rand::get_random_bytes(&mut bytes);
            }
        }
        // Prints a line of this many bytes.
        "chatter" => {
            println!("{}", "x".repeat(number().try_into().expect("a length")));
            "printed".to_owned()
        }
        "grow" => loop {
            std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 20]));
        },
        "exit" => std::process::exit(i32::from(argument != "0")),
        "fail" => return Err(Error::msg("no answer to this")),
        // Forwards the request to the URL in its query. The argument names a step whose timeout is 200 ms.
        "fetch" => {
            let mut client = Client::new();
            let short = Duration::from_millis(200);
            match argument {
                "connect" => client.set_connect_timeout(short),
                "first-byte" => client.set_first_byte_timeout(short),
                "between-bytes" => client.set_between_bytes_timeout(short),
                _ => {}
            }
            let to = Request::builder().method(request.method()).uri(query(&request));
            match client.send(to.body(request.into_body())?).await {
                Ok(answer) => return Ok(Response::builder().status(answer.status()).body(answer.into_body())?),
                Err(error) => return Ok(bad_gateway(&error)),
            }
        }
        // Sends this many concurrent requests to the URL in the query, and then does so again.
        "crowd" => {
            let mut said = String::new();
            for _ in 0..2 {
                let client = Client::new();
                let asked = (0..number())
                    .map(|_| async { client.send(Request::get(query(&request)).body(Body::empty())?).await });
                // Keep all responses until the last one has arrived.
                let answers = future::join_all(asked).await;
                for answer in &answers {
                    said += &match answer {
                        Ok(answer) => format!("{}\n", answer.status().as_u16()),
                        Err(error) => format!("{error:?}\n"),
                    };
                }
            }
            said
        }
        // Sends a request to the URL in the query, and gives up after 100 ms.
        "forsake" => {
            let client = Client::new();
            let asked = client.send(Request::get(query(&request)).body(Body::empty())?);
            match asked.timeout(Duration::from_millis(100)).await {
                Ok(_) => "answered".to_owned(),
                Err(_elapsed) => "forsaken".to_owned(),
            }
        }
        // Sends eight chunks to the URL in the query, and then does what the argument says instead of ending the body. The
        // chunks are so large that the last one waits until the first ones have been sent.
        "abandon" => {
            let how = argument.to_owned();
            let body = stream::unfold(0, move |sent: u32| {
                let how = how.clone();
                async move {
                    if sent == 8 {
                        match how.as_str() {
                            "finish" => return None,
                            "panic" => panic!("in mid-request"),
                            "exit" => std::process::exit(0),
                            _ => drop(wstd::task::sleep(Duration::from_secs(3600)).await),
                        }
                    }
                    Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 256 << 10])), sent.saturating_add(1)))
                }
            });
            let to = Request::post(query(&request)).body(Body::from_try_stream(body))?;
            return Client::new().send(to).await;
        }
        // Sends a request to the URL in its query with a `host` header of another host.
        "forge" => {
            let forged = Request::get(query(&request)).header("host", "evil.example").body(Body::empty())?;
            match Client::new().send(forged).await {
                Ok(answer) => return Ok(answer),
                Err(error) => return Ok(bad_gateway(&error)),
            }
        }
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(text.into()))
}

/// Returns the URL in the query.
fn query(request: &Request<Body>) -> String {
    request.uri().query().expect("a URL").to_owned()
}

fn bad_gateway(error: &Error) -> Response<Body> {
    let mut response = Response::new(format!("{error:?}").into());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

fn pieces(count: u64, end: impl Fn() -> Option<Bytes> + Send + 'static) -> Response<Body> {
    let mut left = count;
    Response::new(Body::from_try_stream(stream::iter(std::iter::from_fn(move || {
        let piece = match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                Some(Bytes::from(vec![b'x'; 1024]))
            }
            None => end(),
        };
        piece.map(Ok::<_, std::io::Error>)
    }))))
}
