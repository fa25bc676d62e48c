//! Services of WASI 0.3: an instance answers many requests at the same time, and what bounds each.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use larder_tests::{
    Client, HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, Upstream, guest, ok_response,
};
use tokio::task::JoinSet;

use super::metrics::values;

fn start(plugin: &str, rest: &str) -> ServeProcess {
    let file = guest("concurrent");
    let config = format!("[plugins.concurrent]\npath = {file:?}\nroute = \"/\"\n{plugin}\n{rest}");
    ServeProcess::start_with_metrics_of(Larder::serve().config(&config))
}

/// One worker thread: all requests are in one instance.
fn start_alone(plugin: &str, rest: &str) -> ServeProcess {
    let file = guest("concurrent");
    let config = format!("[plugins.concurrent]\npath = {file:?}\nroute = \"/\"\n{plugin}\n{rest}");
    ServeProcess::start_with_metrics_of(Larder::serve().config(&config).env("TOKIO_WORKER_THREADS", "1"))
}

/// What a request tells: the instance, the most requests that ran in it at a time, and how many it has had.
fn report(response: &HttpResponse) -> (u64, usize, usize) {
    assert_eq!(response.status, 200, "{response:?}");
    let numbers: Vec<u64> = response.body.split(' ').map(|number| number.parse().unwrap()).collect();
    let &[instance, most, all] = numbers.as_slice() else { panic!("{response:?}") };
    (instance, usize::try_from(most).unwrap(), usize::try_from(all).unwrap())
}

/// Sends requests at the same time, each on a connection of its own.
async fn all_of(serving: &ServeProcess, path: &str, count: usize) -> Vec<HttpResponse> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (address, path) = (serving.address(), path.to_owned());
        requests.spawn(async move { Client::connect(address).await.get(&path).await.unwrap() });
    }
    requests.join_all().await
}

async fn metric(serving: &ServeProcess, name: &str) -> f64 {
    let export = serving.get_from_metrics_port("/metrics").await.body;
    *values(&export).get(name).unwrap_or_else(|| panic!("no `{name}` in {export}"))
}

/// Waits until a metric has a value.
async fn until(serving: &ServeProcess, name: &str, expected: f64) {
    let reached = async {
        while metric(serving, name).await != expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(TEST_TIMEOUT, reached).await.is_err() {
        panic!("`{name}` is {} and not {expected}", metric(serving, name).await);
    }
}

/// Waits until a counter has this value or more.
async fn until_at_least(serving: &ServeProcess, name: &str, least: f64) {
    let reached = async {
        while metric(serving, name).await < least {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(TEST_TIMEOUT, reached).await.is_err() {
        panic!("`{name}` is {} and not {least}", metric(serving, name).await);
    }
}

fn runs(outcome: &str) -> String {
    format!("larder_runs_total{{plugin=\"concurrent\",outcome=\"{outcome}\"}}")
}

fn ended(reason: &str) -> String {
    format!("larder_ended_instances_total{{plugin=\"concurrent\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_service_answers_and_echoes() {
    let serving = start("", "");
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello of 0.3\n"));
    assert_eq!(serving.get("/nowhere").await.status, 404);
    let client = Client::connect(serving.address()).await;
    let long = "x".repeat(300_000);
    assert_eq!(client.send("/echo", &long).await.unwrap(), HttpResponse::ok(&long));
    assert_eq!(serving.get("/drip?20").await, HttpResponse::ok(&".".repeat(20)));
    assert_eq!(serving.get("/error").await.status, 500);
}

#[tokio::test]
async fn an_instance_answers_many_requests_at_the_same_time() {
    let serving = start("reuse = { concurrent = 100, requests = 1000 }", "");
    let began = Instant::now();
    let answers = all_of(&serving, "/wait?5000", 100).await;
    assert!(began.elapsed() < Duration::from_secs(200), "they do not wait for one another");
    let mut instances = BTreeMap::<u64, usize>::new();
    for (instance, most, _) in answers.iter().map(report) {
        let known = instances.entry(instance).or_default();
        *known = most.max(*known);
    }
    assert!(instances.len() < 100 && instances.values().any(|most| *most > 1), "{instances:?}");
}

#[tokio::test]
async fn an_instance_answers_no_more_requests_than_it_may() {
    let serving = start_alone("reuse = { concurrent = 2, requests = 3, idle = \"1h\", max_age = \"1h\" }", "");
    for expected in [1, 2, 3, 1] {
        let (_, most, all) = report(&serving.get("/instance").await);
        assert_eq!((most, all), (1, expected));
    }
    until(&serving, &ended("requests"), 1.0).await;
    let answers = all_of(&serving, "/wait?300", 12).await;
    for (_, most, all) in answers.iter().map(report) {
        assert!(most <= 2 && all <= 3, "{most} {all}");
    }
}

#[tokio::test]
async fn an_idle_or_old_instance_ends() {
    let serving = start("reuse = { idle = \"50ms\" }", "");
    serving.get("/hello").await;
    until(&serving, &ended("idle"), 1.0).await;
    let serving = start("reuse = { max_age = \"1ms\" }", "");
    let first = report(&serving.get("/instance").await).0;
    assert_ne!(report(&serving.get("/instance").await).0, first);
    until(&serving, &ended("max_age"), 1.0).await;
}

#[tokio::test]
async fn requests_beside_one_that_traps_fail_and_later_ones_get_a_new_instance() {
    let serving = start_alone("reuse = { concurrent = 100 }", "");
    let first = report(&serving.get("/instance").await).0;
    let client = Client::connect(serving.address()).await;
    let waiting = tokio::spawn(async move { client.get("/wait?20000").await.unwrap() });
    until(&serving, "larder_instances{plugin=\"concurrent\"}", 1.0).await;
    for path in ["/trap", "/exit?0", "/exit?3"] {
        assert_eq!(serving.get(path).await.status, 500, "{path}");
    }
    let began = Instant::now();
    let status = waiting.await.unwrap().status;
    assert!([200, 500].contains(&status), "{status}");
    assert!(status == 200 || began.elapsed() < Duration::from_secs(10));
    assert_ne!(report(&serving.get("/instance").await).0, first);
    let logged = serving.terminate().await.stderr;
    assert!(logged.contains("it exited with status 3 during a request"), "{logged}");
}

#[tokio::test]
async fn a_request_that_computes_without_end_is_stopped_and_others_are_answered() {
    let serving = start("", "[sandbox]\nmax_cpu_time = \"300ms\"\n");
    let address = serving.address();
    let spinning = tokio::spawn(async move { Client::connect(address).await.get("/spin").await.unwrap() });
    let mut answered = 0;
    while !spinning.is_finished() {
        let answer = serving.get("/hello").await;
        // One that was given to the instance before it was known to compute.
        assert!([200, 500].contains(&answer.status), "{answer:?}");
        answered += usize::from(answer.status == 200);
    }
    assert_eq!(spinning.await.unwrap().status, 500);
    assert!(answered > 0);
    assert_eq!(serving.get("/hello").await.status, 200);
    // One that was given to its instance is counted too.
    until_at_least(&serving, &runs("max_cpu_time"), 1.0).await;
}

#[tokio::test]
async fn a_request_that_waits_too_long_is_answered_and_those_beside_it_go_on() {
    let serving = start_alone("reuse = { concurrent = 100 }", "[sandbox]\ntimeout = \"10s\"\n");
    let address = serving.address();
    let late = tokio::spawn(async move { Client::connect(address).await.get("/wait?60000").await.unwrap() });
    until(&serving, "larder_instances{plugin=\"concurrent\"}", 1.0).await;
    assert_eq!(serving.get("/wait?5000").await.status, 200);
    let beside = tokio::spawn(async move { Client::connect(address).await.get("/wait?6000").await.unwrap() });
    assert_eq!(late.await.unwrap().status, 504);
    assert_eq!(beside.await.unwrap().status, 200);
    until(&serving, &ended("stopped"), 1.0).await;
    assert_eq!(serving.get("/hello").await.status, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_much_is_stopped() {
    let serving = start("", "[sandbox]\nmax_memory = \"16MiB\"\nmax_output = \"100KiB\"\n");
    assert_eq!(serving.get("/eat").await.status, 500);
    assert_eq!(serving.get("/print").await.status, 500);
    assert_eq!(serving.get("/hello").await.status, 200);
    for outcome in ["max_memory", "max_output"] {
        assert_eq!(metric(&serving, &runs(outcome)).await, 1.0, "{outcome}");
    }
}

#[tokio::test]
async fn a_request_counts_until_the_tasks_that_it_leaves_have_ended() {
    let file = guest("concurrent");
    let config = format!(
        "[serve]\nmax_concurrent_requests = 4\n[sandbox]\ntimeout = \"5m\"\n\
         [plugins.concurrent]\npath = {file:?}\nroute = \"/\"\nreuse = {{ requests = 1 }}\n\
         [plugins.other]\npath = {file:?}\nroute = \"/hello\"\n"
    );
    let serving = ServeProcess::start_with_metrics_of(Larder::serve().config(&config));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(serving.get("/then-wait?600000").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 503, 503], "one of four requests is reserved for the other plugin");
    assert_eq!(serving.get("/hello").await.status, 200);
    let serving = start("reuse = { requests = 1 }", "[serve]\nmax_concurrent_requests = 1\n");
    assert_eq!(serving.get("/then-wait?50").await.status, 200);
    let freed = async {
        while serving.get("/hello").await.status == 503 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, freed).await.expect("the task ends");
}

#[tokio::test]
async fn an_instance_takes_requests_while_tasks_of_earlier_ones_wait() {
    let serving = start_alone("reuse = { concurrent = 1 }", "[serve]\nmax_concurrent_requests = 2\n");
    for _ in 0..20 {
        assert_eq!(serving.get("/then-wait?600000").await.status, 200);
    }
    assert_eq!(metric(&serving, &ended("stopped")).await, 0.0);
}

#[tokio::test]
async fn what_a_request_leaves_is_stopped_as_the_request_would_be() {
    let serving = start("", "[sandbox]\nmax_cpu_time = \"1s\"\ntimeout = \"5m\"\n");
    assert_eq!(serving.get("/then-yield").await.status, 200);
    until(&serving, &runs("max_cpu_time"), 1.0).await;
    assert_eq!(serving.get("/then-trap?10").await.status, 200);
    until(&serving, &runs("trapped"), 1.0).await;
    until(&serving, &ended("stopped"), 2.0).await;
    assert_eq!(serving.get("/hello").await.status, 200);
    let serving = start("", "[sandbox]\ntimeout = \"5s\"\n");
    assert_eq!(serving.get("/then-wait?600000").await.status, 200);
    until(&serving, &runs("timeout"), 1.0).await;
    until(&serving, &ended("stopped"), 1.0).await;
}

#[tokio::test]
async fn the_end_of_a_request_does_not_cut_a_line_of_another() {
    let serving = start_alone("reuse = { concurrent = 100, requests = 10000 }", "");
    let address = serving.address();
    let line = tokio::spawn(async move { Client::connect(address).await.get("/line?1500").await.unwrap() });
    while !line.is_finished() {
        serving.get("/hello").await;
    }
    assert_eq!(line.await.unwrap().status, 200);
    let logged = serving.terminate().await.stderr;
    assert!(logged.contains("concurrent: first part, second part\n"), "{logged}");
}

#[tokio::test]
async fn an_instance_that_keeps_much_is_replaced_before_a_request_fails() {
    // Each set of fields counts as 64 KiB of the 4 MiB for HTTP messages.
    let serving = start_alone("reuse = { requests = 10000 }", "[sandbox]\nmax_memory = \"16MiB\"\n");
    for _ in 0..100 {
        assert_eq!(serving.get("/keep").await.status, 200);
    }
    until_at_least(&serving, &ended("full"), 1.0).await;
}

#[tokio::test]
async fn a_request_that_wants_a_place_ends_one_idle_instance() {
    let file = guest("concurrent");
    let reuse = "reuse = { concurrent = 1, idle = \"1h\" }";
    let config = format!(
        "[serve]\nmax_concurrent_requests = 4\n[plugins.concurrent]\npath = {file:?}\nroute = \"/\"\n{reuse}\n\
         [plugins.other]\npath = {file:?}\nroute = \"/wait\"\n{reuse}\n"
    );
    let serving = ServeProcess::start_with_metrics_of(Larder::serve().config(&config));
    let answers = all_of(&serving, "/line?5000", 3).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    until(&serving, "larder_idle_instances{plugin=\"concurrent\"}", 3.0).await;
    // There is a fourth place.
    let answers = all_of(&serving, "/wait?5000", 2).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(metric(&serving, &ended("displaced")).await, 1.0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_a_complete_one() {
    let serving = start("", "");
    let client = Client::connect(serving.address()).await;
    assert!(client.get("/trap-in-body").await.is_err());
    assert_eq!(serving.get("/hello").await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_body_frees_its_request() {
    let serving = start("", "[serve]\nmax_concurrent_requests = 1\n");
    let mut stream = TcpStream::connect(serving.address()).unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    let mut some = [0; 10_000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    let freed = async {
        while serving.get("/hello").await.status == 503 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, freed).await.expect("the request ends");
}

#[tokio::test]
async fn a_service_sends_requests_to_the_hosts_of_its_grant_only() {
    let upstream = Upstream::start(|_| async { ok_response("here") }).await;
    let local = upstream.address().to_string();
    let serving = start("", "");
    assert_eq!(serving.get(&format!("/fetch?{local}/")).await.body, "ErrorCode::HttpRequestDenied");
    let serving = start(&format!("outgoing_hosts = [{local:?}]"), "");
    assert_eq!(serving.get(&format!("/fetch?{local}/x")).await.body, "200");
    assert_eq!(serving.get("/fetch?127.0.0.1:1/x").await.body, "ErrorCode::HttpRequestDenied");
    // Many at once, all in one or two instances.
    let answers = all_of(&serving, &format!("/fetch?{local}/x"), 12).await;
    assert!(answers.iter().all(|answer| answer.body == "200"), "{answers:?}");
}

#[tokio::test]
async fn the_requests_that_a_service_sends_have_the_limits_of_those_of_0_2() {
    let upstream = Upstream::start(|_| async { ok_response("here") }).await;
    // The first connection is answered with a long head, the second with a part of a body, and the third with nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (local, raw) = (upstream.address().to_string(), listener.local_addr().unwrap().to_string());
    let hosts = format!("outgoing_hosts = [{local:?}, {raw:?}]");
    let serving = start(&hosts, "[sandbox]\nmax_outgoing_requests = 2\n");
    assert_eq!(serving.get(&format!("/crowd?2/{local}/x")).await.body, "4 4");
    let refused = format!("/crowd?4/{local}/x");
    for _ in 0..2 {
        let expected = "4 4 ErrorCode::ConnectionLimitReached ErrorCode::ConnectionLimitReached";
        assert_eq!(serving.get(&refused).await.body, expected, "those before are over");
    }
    let said = std::thread::spawn(move || {
        let long = format!("HTTP/1.1 200 OK\r\nlong: {}\r\n\r\n", "x".repeat(1 << 20));
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nhalf".to_owned();
        [long, half, String::new()].map(|said| {
            let (mut stream, _) = listener.accept().unwrap();
            let _request = stream.read(&mut [0; 1024]).unwrap();
            // The host has seen enough of the first one before it is complete.
            let _broken = stream.write_all(said.as_bytes());
            stream
        })
    });
    let path = format!("/read?300/{raw}/x");
    let began = Instant::now();
    assert_eq!(serving.get(&path).await.body, "ErrorCode::HttpResponseHeaderSectionSize(None)");
    let half = serving.get(&path).await.body;
    assert!(half.starts_with("ErrorCode::"), "{half}");
    assert_eq!(serving.get(&path).await.body, "ErrorCode::HttpResponseTimeout");
    // Well before the run's own end.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(said.join().unwrap());
}

#[tokio::test]
async fn a_thousand_hits_in_few_instances_are_answered_while_one_request_computes() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let rest = format!("[serve]\nmax_concurrent_requests = 2000\n{}", server.cache("c"));
    let serving = start_alone("reuse = { concurrent = 2000, requests = 10000 }", &rest);
    assert_eq!(serving.get("/cached?key").await, HttpResponse::ok("key"));
    let address = serving.address();
    let slow = tokio::spawn(async move { Client::connect(address).await.get("/slower?other").await.unwrap() });
    until(&serving, "larder_instances{plugin=\"concurrent\"}", 1.0).await;
    let mut hits = JoinSet::new();
    for _ in 0..10 {
        let client = Client::connect_http2(address).await;
        for _ in 0..100 {
            let client = client.clone();
            hits.spawn(async move { client.get("/gathered?1000/key").await.unwrap() });
        }
    }
    let hits = hits.join_all().await;
    assert!(!slow.is_finished(), "the hits did not wait for the computation");
    assert_eq!(hits.len(), 1000);
    assert!(hits.iter().all(|hit| *hit == HttpResponse::ok("key")), "{hits:?}");
    assert_eq!(slow.await.unwrap(), HttpResponse::ok("other"));
    // One, unless a busy machine made it look as if it computed for long.
    let created = metric(&serving, "larder_created_instances_total{plugin=\"concurrent\"}").await;
    assert!(created <= 10.0, "{created}");
    let (_, most, _) = report(&serving.get("/instance").await);
    assert!(created > 1.0 || most > 500, "{most} at the same time");
}

#[tokio::test]
async fn requests_of_one_instance_wait_for_one_computation() {
    let server = Server::start(Kind::Valkey);
    let ram = "[caches.ram]\ntype = \"ram\"\n".to_owned();
    for rest in std::iter::once(ram).chain(server.as_ref().map(|server| server.cache("c"))) {
        let serving = start_alone("reuse = { concurrent = 100 }", &rest);
        let began = Instant::now();
        let answers = all_of(&serving, "/slow?same", 20).await;
        assert!(began.elapsed() < Duration::from_secs(20), "computed once and not 20 times");
        assert!(answers.iter().all(|answer| *answer == HttpResponse::ok("same")), "{answers:?}");
    }
}

#[tokio::test]
async fn a_stale_value_answers_the_requests_of_an_instance_while_one_of_them_refreshes_it() {
    let server = Server::start(Kind::Valkey);
    let ram = "[caches.ram]\ntype = \"ram\"\n".to_owned();
    for rest in std::iter::once(ram).chain(server.as_ref().map(|server| server.cache("c"))) {
        let serving = start_alone("reuse = { concurrent = 100 }", &rest);
        let answers = all_of(&serving, "/refreshed?key", 10).await;
        assert!(answers.iter().all(|answer| *answer == HttpResponse::ok("1")), "{answers:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
        let address = serving.address();
        let mut requests = JoinSet::new();
        for _ in 0..10 {
            requests.spawn(async move { Client::connect(address).await.get("/refreshed?key").await.unwrap().body });
        }
        let mut answers = Vec::new();
        while let Some(answer) = requests.join_next().await {
            answers.push(answer.unwrap());
        }
        // In the order in which they came: the one that refreshes is last.
        let (last, others) = answers.split_last().unwrap();
        assert!(last == "2" && others.iter().all(|answer| answer == "1"), "{answers:?}");
    }
}

#[tokio::test]
async fn at_shutdown_running_requests_are_finished() {
    let serving = start("", "");
    let address = serving.address();
    let running = tokio::spawn(async move { Client::connect(address).await.get("/wait?500").await.unwrap() });
    until(&serving, "larder_instances{plugin=\"concurrent\"}", 1.0).await;
    let began = Instant::now();
    assert_eq!(serving.terminate().await.status, Some(0));
    assert_eq!(running.await.unwrap().status, 200);
    assert!(began.elapsed() < Duration::from_secs(10));
}
