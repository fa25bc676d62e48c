//! Two processes that share a server.

use std::time::{Duration, Instant};

use larder_tests::{Client, Kind, Larder, ServeProcess, Server, guest};
use tokio::task::JoinSet;

/// A value that takes 200 ms and lasts 1 s is asked for on 64 connections all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_computed_once_for_each_expiry_over_two_processes_under_load() {
    const LOAD: Duration = Duration::from_secs(5);
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = format!("{}default_expire = 1\nwait = \"30s\"\n", server.cache("c"));
    let start =
        || ServeProcess::start_with(Larder::serve().config(&config).env("LARDER_LOG", "warn").arg(guest("http")));
    let hosts = [start(), start()];
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for address in hosts.iter().map(ServeProcess::address).cycle().take(64) {
        clients.spawn(async move {
            let client = Client::connect(address).await;
            let (mut computed, mut hits) = (0_u32, 0_u32);
            while began.elapsed() < LOAD {
                match client.get("/compute/key").await.unwrap().body.as_str() {
                    "key true" => computed += 1,
                    "key false" => hits += 1,
                    other => panic!("{other}"),
                }
            }
            (computed, hits)
        });
    }
    let (mut computed, mut hits) = (0, 0);
    while let Some(client) = clients.join_next().await {
        let client = client.unwrap();
        computed += client.0;
        hits += client.1;
    }
    // From the begin of a computation to that of the next one it takes 200 ms to compute, and 1 s to expire.
    let most = f64::floor(began.elapsed().as_secs_f64() / 1.2) + 1.0;
    assert!((2.0..=most).contains(&f64::from(computed)), "computed {computed} times, and may be {most} times");
    assert!(hits > 100, "{hits}");
    println!("{hits} hits, computed {computed} times in {:?}", began.elapsed());
}
