//! The metrics port and signals, whatever plugins, clients and the server of a cache do.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_tests::{Client, HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, guest};
use tokio::task::JoinSet;

/// The longest time for one answer. It is far above the bound of `make bench-siege`, which measures alone: here, many
/// tests share the machine. The plugins and clients go on for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host with a plugin that is busy and one that is quiet. Requests are cut off soon after SIGTERM.
fn start(cache: &str) -> ServeProcess {
    let path = guest("http").display().to_string();
    let table = |name: &str| format!("[plugins.{name}]\npath = {path:?}\nroute = \"/{name}\"\n");
    let limits = "[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n[serve]\nshutdown_timeout = \"1s\"\n";
    let config = [cache, &table("busy"), &table("quiet"), limits].concat();
    ServeProcess::start_with_metrics_of(Larder::serve().config(&config))
}

/// Sends 20 requests of the busy plugin again and again, and waits until some run.
async fn keep_busy(serving: &ServeProcess, path: &'static str) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    for _ in 0..20 {
        let address = serving.address();
        busy.spawn(async move {
            while let Some(client) = Client::try_connect(address).await {
                let _ends_or_fails = client.get(path).await;
            }
        });
    }
    let running = async {
        loop {
            let export = serving.get_from_metrics_port("/metrics").await.body;
            let count = export.lines().find_map(|line| line.strip_prefix("larder_instances{plugin=\"busy\"} "));
            if count.is_some_and(|count| count.parse::<f64>().unwrap() >= 2.0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, running).await.expect("the plugin is busy");
    busy
}

/// Each health check is answered, another plugin is, and SIGTERM ends the host.
async fn assert_works(serving: ServeProcess) {
    let mut longest = Duration::ZERO;
    for n in 0..100 {
        let began = Instant::now();
        assert_eq!(serving.get_from_metrics_port("/healthz").await, HttpResponse::ok("alive\n"));
        longest = longest.max(began.elapsed());
        assert!(longest < PATIENCE, "health check {n}: {longest:?}");
    }
    println!("/healthz: {longest:?} at most");
    for _ in 0..3 {
        assert_eq!(serving.get("/quiet/do/hello").await, HttpResponse::ok("hello\n"));
    }
    let began = Instant::now();
    let finished = serving.terminate().await;
    println!("SIGTERM: {:?}", began.elapsed());
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_signals_work_while_plugins_wait_for_a_server_that_does_not_answer() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let serving = start(&server.cache("c"));
    let frozen = server.freeze_until_drop();
    let busy = keep_busy(&serving, "/busy/do/visit/key").await;
    // It asks the server, and says so.
    let ready = tokio::time::timeout(TEST_TIMEOUT, serving.get_from_metrics_port("/readyz")).await;
    let ready = ready.expect("the readiness check has a deadline").body;
    assert!(ready.starts_with("c: degraded, reads are misses: "), "{ready}");
    assert_works(serving).await;
    drop((busy, frozen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_signals_work_beside_1000_connections_that_send_nothing() {
    let serving = start("");
    let address = serving.address();
    let connect = move || TcpStream::connect(address).unwrap();
    let silent = tokio::task::spawn_blocking(move || (0..1_000).map(|_| connect()).collect::<Vec<_>>());
    let silent = silent.await.unwrap();
    assert_works(serving).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_signals_work_beside_plugins_in_long_calls_of_the_host() {
    let serving = start("");
    let busy = keep_busy(&serving, "/busy/do/random/1048576").await;
    assert_works(serving).await;
    drop(busy);
}
