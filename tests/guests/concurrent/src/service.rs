//! The HTTP service: what it does is the path of the request.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use larder::concurrent::Cache;
use wasip3::cli::exit;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::random::random::get_random_u64;
use wasip3::{spawn_local, wit_bindgen, wit_future, wit_stream};

use crate::hoard::hoard;
use crate::outgoing::{crowd, fetch, read};

struct Service;

wasip3::http::service::export!(Service);

/// Tells instances apart.
static INSTANCE: LazyLock<u64> = LazyLock::new(get_random_u64);

thread_local! {
    /// The requests that run, the most that ran at a time, and those that began.
    static RUNNING: Cell<[usize; 3]> = const { Cell::new([0; 3]) };
}

/// Counts a request while it runs.
struct Running;

impl Running {
    fn begin() -> Self {
        RUNNING.with(|counts| {
            let [running, most, all] = counts.get();
            let running = running.saturating_add(1);
            counts.set([running, most.max(running), all.saturating_add(1)]);
        });
        Self
    }

    /// `INSTANCE MOST ALL`
    fn report(&self) -> String {
        let [_, most, all] = RUNNING.with(Cell::get);
        format!("{} {most} {all}", *INSTANCE)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with(|counts| {
            let [running, most, all] = counts.get();
            counts.set([running.saturating_sub(1), most, all]);
        });
    }
}

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let running = Running::begin();
        let path = request.get_path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let number = query.parse::<u64>().unwrap_or(0);
        Ok(match path {
            "/hello" => text("hello of 0.3\n".to_owned()),
            "/instance" => text(running.report()),
            "/wait" => {
                wait_for(number.saturating_mul(1_000_000)).await;
                text(running.report())
            }
            "/spin" => loop {
                std::hint::spin_loop();
            },
            // Answers, and goes on.
            "/then-wait" => {
                spawn_local(wait_for(number.saturating_mul(1_000_000)));
                text(running.report())
            }
            "/then-yield" => {
                spawn_local(async {
                    loop {
                        wit_bindgen::yield_async().await;
                    }
                });
                text(running.report())
            }
            "/then-trap" => {
                spawn_local(async move {
                    wait_for(number.saturating_mul(1_000_000)).await;
                    panic!("on purpose");
                });
                text(running.report())
            }
            "/keep" => {
                std::mem::forget(Fields::new());
                text(running.report())
            }
            // Writes a line to stderr in two parts, with this many milliseconds between them.
            "/line" => {
                eprint!("first part, ");
                wait_for(number.saturating_mul(1_000_000)).await;
                eprintln!("second part");
                text(running.report())
            }
            "/trap" => panic!("on purpose"),
            "/exit" => {
                exit::exit_with_code(u8::try_from(number).unwrap_or(1));
                text(String::new())
            }
            "/eat" => {
                let mut eaten = Vec::new();
                loop {
                    eaten.push(vec![1_u8; 1 << 20]);
                }
            }
            "/print" => loop {
                println!("{}", "0123456789abcdef".repeat(100));
            },
            "/error" => return Err(ErrorCode::InternalError(Some("on purpose".to_owned()))),
            "/echo" => {
                let (_sent, failed) = wit_future::new(|| Ok(()));
                let (body, trailers) = Request::consume_body(request, failed);
                Response::new(Fields::new(), Some(body), trailers).0
            }
            // A byte each 10 ms.
            "/drip" => stream(move |mut body| async move {
                for _ in 0..number {
                    wait_for(10_000_000).await;
                    if !body.write_all(vec![b'.']).await.is_empty() {
                        break;
                    }
                }
            }),
            "/endless" => {
                stream(|mut body| async move { while body.write_all(vec![b'.'; 10_000]).await.is_empty() {} })
            }
            "/trap-in-body" => stream(|mut body| async move {
                let _left = body.write_all(vec![b'.'; 10_000]).await;
                panic!("on purpose");
            }),
            "/cached" => text(cached(query, 0).await),
            "/gathered" => text(gathered(query).await),
            "/hoard" => text(hoard(query).await),
            "/slow" => text(cached(query, 2000).await),
            "/slower" => text(cached(query, 10_000).await),
            "/refreshed" => text(refreshed(query).await),
            "/fetch" => text(fetch(query).await),
            "/crowd" => text(crowd(query).await),
            "/read" => text(read(query).await),
            _ => {
                let response = text("not found\n".to_owned());
                let _known = response.set_status_code(404);
                response
            }
        })
    }
}

fn text(text: String) -> Response {
    stream(|mut body| async move {
        let _left = body.write_all(text.into_bytes()).await;
    })
}

/// A response whose body is written after it is returned.
fn stream<F: Future<Output = ()> + 'static>(
    write: impl FnOnce(wasip3::wit_bindgen::StreamWriter<u8>) -> F,
) -> Response {
    let (writer, body) = wit_stream::new();
    let (ended, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    drop(ended);
    spawn_local(write(writer));
    response
}

/// The value of a key, which takes this many milliseconds to compute: the key itself.
async fn cached(key: &str, milliseconds: u64) -> String {
    let compute = async || {
        wait_for(milliseconds.saturating_mul(1_000_000)).await;
        key.to_owned()
    };
    let value = async { Cache::default()?.get_or_set(key, Duration::from_secs(60), compute).await };
    value.await.unwrap_or_else(|error| error.to_string())
}

/// Does `COUNT/KEY`: waits until so many of these requests run, for six seconds at most, and then returns the value of the key.
async fn gathered(query: &str) -> String {
    thread_local! { static GATHERED: Cell<usize> = const { Cell::new(0) } }
    let (count, key) = query.split_once('/').unwrap_or(("", query));
    let count = count.parse().unwrap_or(0);
    GATHERED.with(|gathered| gathered.set(gathered.get().saturating_add(1)));
    for _ in 0..60 {
        if GATHERED.with(Cell::get) >= count {
            break;
        }
        wait_for(100_000_000).await;
    }
    cached(key, 0).await
}

/// The value of a key, which is fresh for 200 ms, stale for 50 s and takes 2 s to compute: the number of the computation in this
/// instance.
async fn refreshed(key: &str) -> String {
    thread_local! { static COMPUTATIONS: Cell<u32> = const { Cell::new(0) } }
    let compute = async || {
        let number = COMPUTATIONS.with(|computations| {
            computations.set(computations.get().saturating_add(1));
            computations.get()
        });
        wait_for(2_000_000_000).await;
        number
    };
    let (fresh, stale) = (Duration::from_millis(200), Duration::from_secs(50));
    let value = async { Cache::default()?.get_or_refresh(key, fresh, stale, compute).await };
    value.await.map_or_else(|error| error.to_string(), |number| number.to_string())
}
