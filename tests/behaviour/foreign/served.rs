//! Interfaces of other projects under `larder serve`, where an instance answers many requests.

use std::time::Duration;

use larder_tests::{HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, guest};

fn start(plugin: &str, reuse: &str, cache: &str) -> ServeProcess {
    let table = format!("[plugins.{plugin}]\npath = {:?}\nroute = \"/\"\n{reuse}", guest(plugin));
    let limits = "[sandbox]\nmax_handles = 3\nmax_vacancies = 3\n";
    ServeProcess::start_with(Larder::serve().config(&format!("{cache}{table}\n{limits}")))
}

/// Sends a request, again while the one before it still counts.
async fn ask(serving: &ServeProcess) -> HttpResponse {
    let asked = async {
        loop {
            match serving.get("/").await {
                busy if busy.status == 503 => tokio::time::sleep(Duration::from_millis(1)).await,
                answer => return answer,
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, asked).await.expect("the request before it ends")
}

#[tokio::test]
async fn the_handles_of_wasi_keyvalue_do_not_pile_up_from_request_to_request() {
    let server = Server::start(Kind::Valkey);
    let on_server = server.as_ref().map(|server| server.cache("cache"));
    for cache in ["[caches.cache]\ntype = \"ram\"\n".to_owned()].into_iter().chain(on_server) {
        let cache = format!("{cache}[serve]\nmax_concurrent_requests = 1\n");
        let serving = start("kv_http", "reuse = {}", &cache);
        for nth in 1..=20 {
            assert_eq!(ask(&serving).await.body, format!("{nth}: Ok({nth})"), "{cache}");
        }
        assert_eq!(serving.terminate().await.status, Some(0));
        let serving = start("kv_http", "", &cache);
        let first = ask(&serving).await.body;
        assert!(first.starts_with("1: Ok("), "{first}");
        assert!(
            ask(&serving).await.body.starts_with("1: Ok("),
            "without `reuse` each request has an instance of its own"
        );
        assert_eq!(serving.terminate().await.status, Some(0));
    }
}

#[tokio::test]
async fn a_service_of_wasi_0_3_answers_with_wasmcloud_keyvalue() {
    let server = Server::start(Kind::Valkey);
    let on_server = server.as_ref().map(|server| server.cache("cache"));
    for cache in ["[caches.cache]\ntype = \"ram\"\n".to_owned()].into_iter().chain(on_server) {
        let serving = start("http_keyvalue_concurrent", "", &cache);
        for nth in 1..=20 {
            assert_eq!(ask(&serving).await.body, format!("Ok({nth})"), "{cache}");
        }
        assert_eq!(serving.terminate().await.status, Some(0));
    }
}
