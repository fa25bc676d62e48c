//! Shutdown of a server: running requests are finished, and new ones are refused.

use std::time::{Duration, Instant};

use larder_tests::{Client, HttpResponse, Kind, Larder, ServeProcess, Server, guest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Waits until the server takes no connection any longer.
async fn refuses(address: std::net::SocketAddr) {
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(larder_tests::TEST_TIMEOUT, closed).await.expect("it refuses new connections");
}

#[tokio::test]
async fn running_requests_are_finished_and_new_ones_are_refused() {
    let mut serving = ServeProcess::start("");
    let address = serving.address();
    let clients = [Client::connect(address).await, Client::connect_http2(address).await];
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(async move { client.get("/doze/1000").await.unwrap() });
        serving.expect_line("http: dozing").await;
    }
    let idle = Client::connect(address).await;
    assert_eq!(idle.get("/hello").await.unwrap(), HttpResponse::ok("hello\n"));
    let finished = tokio::spawn(serving.terminate());
    refuses(address).await;
    while let Some(answer) = running.join_next().await {
        assert_eq!(answer.unwrap(), HttpResponse::ok("dozed"));
    }
    // A connection that was kept open for more does not keep the server.
    assert_eq!(finished.await.unwrap().status, Some(0));
}

/// The requests in the server's log are those that the clients have responses to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_aborted_by_a_shutdown_under_load() {
    let serving = ServeProcess::start("");
    let address = serving.address();
    let mut clients = JoinSet::new();
    for n in 0..32 {
        clients.spawn(async move {
            let mut answered = 0;
            loop {
                let client = if n % 2 == 0 {
                    Client::try_connect(address).await
                } else {
                    Client::try_connect_http2(address).await
                };
                let Some(client) = client else { return answered };
                for _ in 0..10 {
                    // A connection may be closed under a request that the server never took.
                    let Ok(answer) = client.get("/sleep/3").await else { return answered };
                    assert_eq!(answer, HttpResponse::ok("slept"));
                    answered += 1;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    let mut answered = 0;
    while let Some(count) = clients.join_next().await {
        answered += count.unwrap();
    }
    let logged = |end: &str| finished.stderr.matches(&format!("/sleep/3 {end} ")).count();
    assert_eq!((logged("status=200"), logged("gone=true")), (answered, 0));
    assert!(answered > 100, "{answered}");
    println!("{answered} requests were answered, and none was cut");
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_its_timeout() {
    let mut serving = ServeProcess::start("[serve]\nshutdown_timeout = \"300ms\"\n");
    let client = Client::connect(serving.address()).await;
    let asked = tokio::spawn(async move { client.get("/doze/60000").await });
    serving.expect_line("http: dozing").await;
    let began = Instant::now();
    let finished = serving.terminate().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(finished.stderr.contains("requests were still running 300ms after shutdown"), "{}", finished.stderr);
    assert_eq!(finished.status, Some(0));
    assert_cut_off(asked.await.unwrap());
}

/// The client receives an error, if there was time for it.
fn assert_cut_off(answer: Result<HttpResponse, hyper::Error>) {
    if let Ok(answer) = answer {
        assert_eq!((answer.status, answer.body.as_str()), (503, "the server is shutting down\n"));
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut serving = ServeProcess::start("");
    let address = serving.address();
    let client = Client::connect(address).await;
    let asked = tokio::spawn(async move { client.get("/doze/60000").await });
    serving.expect_line("http: dozing").await;
    serving.process().terminate();
    refuses(address).await;
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(1), "{}", finished.stderr);
    assert!(asked.await.unwrap().is_err());
}

/// Another host need not wait for the lease of a computation that was cut off by the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_released_at_shutdown() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = format!("{}lease = \"1h\"\nwait = \"1m\"\n[serve]\nshutdown_timeout = \"100ms\"\n", server.cache("c"));
    let first = ServeProcess::start_with(Larder::serve().config(&config).arg(guest("http")));
    let client = Client::connect(first.address()).await;
    let asked = tokio::spawn(async move { client.get("/hold/key").await });
    let mut looking = server.client();
    larder_tests::wait_for("the lease", || {
        let keys: usize = redis::cmd("DBSIZE").query(&mut looking).unwrap();
        (keys == 1).then_some(())
    });
    assert_eq!(first.terminate().await.status, Some(0));
    assert_cut_off(asked.await.unwrap());
    let second = ServeProcess::start_with(Larder::serve().config(&config).arg(guest("http")));
    let began = Instant::now();
    assert_eq!(second.get("/compute/key").await, HttpResponse::ok("key true"));
    assert!(began.elapsed() < Duration::from_secs(30), "it waited for the lease");
}
