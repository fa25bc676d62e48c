//! Requests above the concurrency limit are answered or refused; none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_tests::{Client, HttpResponse, ServeProcess, TEST_TIMEOUT};
use tokio::task::JoinSet;

#[tokio::test]
async fn max_concurrent_requests_makes_one_more_503_at_once_and_the_next_one_is_answered() {
    let mut serving = ServeProcess::start("[serve]\nmax_concurrent_requests = 2\n");
    let client = Client::connect_http2(serving.address()).await;
    let mut running = JoinSet::new();
    for _ in 0..2 {
        let client = client.clone();
        running.spawn(async move { client.get("/doze/5000").await.unwrap() });
        serving.expect_line("http: dozing").await;
    }
    let refused = client.get("/hello").await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, "too many concurrent requests\n"));
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    while let Some(answer) = running.join_next().await {
        assert_eq!(answer.unwrap(), HttpResponse::ok("dozed"));
    }
    // An answered request counts a moment longer.
    let next = async { while client.get("/hello").await.unwrap() != HttpResponse::ok("hello\n") {} };
    tokio::time::timeout(TEST_TIMEOUT, next).await.expect("the requests are free again");
}

/// They come on fifty connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_are_answered_or_refused() {
    let serving = ServeProcess::start("[serve]\nmax_concurrent_requests = 100\n");
    let answered = Arc::new(AtomicUsize::new(0));
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let client = Client::connect_http2(serving.address()).await;
        for _ in 0..200 {
            let (client, answered) = (client.clone(), Arc::clone(&answered));
            asking.spawn(async move {
                let answer = client.get("/sleep/20").await.unwrap();
                match answer.status {
                    200 => {
                        assert_eq!(answer.body, "slept");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    503 => assert_eq!(answer.body, "too many concurrent requests\n"),
                    _ => panic!("{answer:?}"),
                }
            });
        }
    }
    let mut ended = 0;
    while let Some(outcome) = asking.join_next().await {
        outcome.unwrap();
        ended += 1;
    }
    assert_eq!(ended, 10_000);
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= 100, "{answered} of 10,000 were answered");
    println!("{answered} of 10,000 were answered");
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
}
