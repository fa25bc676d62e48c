//! A plugin with many requests leaves room and processor time for the others.

use std::time::Duration;

use larder_tests::{Client, HttpResponse, Larder, ServeProcess, guest};
use tokio::task::JoinSet;

/// Serves the plugin `http` twice, at `/busy` and `/quiet`.
fn start(busy: &str, rest: &str) -> ServeProcess {
    let path = guest("http").display().to_string();
    let config = format!(
        "[plugins.busy]\npath = {path:?}\nroute = \"/busy\"\n{busy}\
         [plugins.quiet]\npath = {path:?}\nroute = \"/quiet\"\n{rest}"
    );
    ServeProcess::start_with(Larder::serve().config(&config))
}

#[tokio::test]
async fn forty_requests_that_spin_do_not_hold_up_another_plugin() {
    let serving = start("", "[sandbox]\ntimeout = \"20s\"\nmax_cpu_time = \"20s\"\n");
    let spinning = Client::connect_http2(serving.address()).await;
    let mut spinners = JoinSet::new();
    for _ in 0..40 {
        let client = spinning.clone();
        spinners.spawn(async move { client.get("/busy/do/spin").await.unwrap() });
    }
    let quiet = Client::connect(serving.address()).await;
    let answered = async {
        for _ in 0..100 {
            assert_eq!(quiet.get("/quiet/do/hello").await.unwrap(), HttpResponse::ok("hello\n"));
        }
    };
    // One turn of a spinner for each step of an answer would take more than a second each.
    tokio::select! {
        () = answered => {}
        ended = spinners.join_next() => panic!("a spinner ended before the hundredth answer: {ended:?}"),
    }
}

#[tokio::test]
async fn slow_requests_of_one_plugin_leave_room_for_another() {
    let mut serving = start("", "[serve]\nmax_concurrent_requests = 8\n");
    let client = Client::connect_http2(serving.address()).await;
    let mut slow = JoinSet::new();
    // A quarter of 8 is reserved, one for each plugin.
    for _ in 0..7 {
        let client = client.clone();
        slow.spawn(async move { client.get("/busy/do/doze/20000").await });
        serving.expect_line("busy: dozing").await;
    }
    let refused = client.get("/busy/do/hello").await.unwrap();
    assert_eq!((refused.status, refused.retry_after.as_deref()), (503, Some("1")));
    assert_eq!(client.get("/quiet/do/hello").await.unwrap(), HttpResponse::ok("hello\n"));
}

#[tokio::test]
async fn max_concurrent_requests_of_a_plugin_bounds_that_plugin_only() {
    let mut serving = start("max_concurrent_requests = 2\n", "");
    let client = Client::connect_http2(serving.address()).await;
    let mut slow = JoinSet::new();
    for _ in 0..2 {
        let client = client.clone();
        slow.spawn(async move { client.get("/busy/do/doze/5000").await.unwrap() });
        serving.expect_line("busy: dozing").await;
    }
    assert_eq!(client.get("/busy/do/hello").await.unwrap().status, 503);
    let mut quiet = JoinSet::new();
    for _ in 0..10 {
        let client = client.clone();
        quiet.spawn(async move { client.get("/quiet/do/doze/1").await.unwrap() });
    }
    while let Some(answer) = quiet.join_next().await {
        assert_eq!(answer.unwrap(), HttpResponse::ok("dozed"));
    }
    while let Some(answer) = slow.join_next().await {
        assert_eq!(answer.unwrap(), HttpResponse::ok("dozed"));
    }
    let next = async {
        while client.get("/busy/do/hello").await.unwrap().status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(larder_tests::TEST_TIMEOUT, next).await.expect("the plugin's requests are free again");
}
