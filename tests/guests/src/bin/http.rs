//! A plugin that answers requests: what its path says, for better or worse.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{future, stream};
use wstd::future::FutureExt;
use wstd::http::body::{Body, Bytes};
use wstd::http::{Client, Error, Request, Response, StatusCode};
use wstd::time::Duration;

/// How many requests this instance has answered.
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
        // Every value of the header with this name.
        "header" => {
            let values = request.headers().get_all(argument).iter();
            values.map(|value| value.to_str().expect("text")).collect::<Vec<_>>().join(" | ")
        }
        "env" => std::env::var(argument).unwrap_or_default(),
        "echo" => return Ok(Response::new(request.into_body())),
        // How long the body is, or that it broke off.
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
        // Computes for 200 ms what is not in the cache, and says whether it did.
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
        // Computes without end.
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
        // Says that it has begun.
        "doze" => {
            println!("dozing");
            wstd::task::sleep(Duration::from_millis(number())).await;
            "dozed".to_owned()
        }
        // Says that it has begun, and ends with the request's body.
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
        // So many pieces of 1 KiB.
        "pieces" => return Ok(pieces(number(), || None)),
        // The same, and then a panic in place of the end.
        "cut" => return Ok(pieces(number(), || panic!("in mid-answer"))),
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
        "grow" => loop {
            std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 20]));
        },
        "exit" => std::process::exit(i32::from(argument != "0")),
        "fail" => return Err(Error::msg("no answer to this")),
        // Passes the request on to the URL in its query. One step of that may take 200 ms only.
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
        // Asks the URL in the query so many times at once, and all of that twice.
        "crowd" => {
            let mut said = String::new();
            for _ in 0..2 {
                let client = Client::new();
                let asked = (0..number())
                    .map(|_| async { client.send(Request::get(query(&request)).body(Body::empty())?).await });
                // All answers are held until the last is there.
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
        // Asks the URL in the query, and does not wait for more than 100 ms.
        "forsake" => {
            let client = Client::new();
            let asked = client.send(Request::get(query(&request)).body(Body::empty())?);
            match asked.timeout(Duration::from_millis(100)).await {
                Ok(_) => "answered".to_owned(),
                Err(_elapsed) => "forsaken".to_owned(),
            }
        }
        // Sends eight pieces to the URL in the query, and then what the argument says in place of the end. They are so long
        // that the last one waits until the first ones have been sent.
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
        // Says that it goes to another host than the URL in its query.
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

/// The URL in the query.
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
