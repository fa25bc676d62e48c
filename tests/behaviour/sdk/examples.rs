//! Every example runs and prints what its documentation shows.

use std::process::Command;

use larder_tests::{HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, guest, on_every_backend, program};

#[test]
fn hello_cache_greets() {
    assert_eq!(Larder::run("hello-cache").succeed().stdout, "hello\n");
}

/// It does all that the caching guide shows, in RAM and on each server alike.
#[test]
fn guide_does_what_the_guides_show() {
    on_every_backend(|config| {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/guide/data::/data");
        let run = Larder::run_with(&["--dir", data], "guide").config(config).succeed();
        let expected = "hello\nexpensive\n{\"EUR\": 1.0}\n\nexpensive\na page\n[\"a post of page 1\"] [\"a post of page 2\"]\n\
                        [Some(12), Some(0), None]\nstored: true\ntrue 2 7\n";
        assert_eq!(run.stdout, expected);
        let config = config.replace("[caches.cache]", "[caches.valkey]");
        assert_eq!(Larder::run("users").config(&config).succeed().stdout, "Some(User { name: \"John\" })\n");
        Larder::run("script").config(&config).arg("clear-all").succeed();
        let emmett = Larder::run("from_emmett").config(&config).succeed().stdout;
        let posts = "Some(\"John\")\n[\"a post of page 1\"]\n[\"a post of page 1\"]\n\
                     [\"a post of page 2\"] Ok(\"John\")\ntrue\n1\n1\n";
        assert_eq!(emmett, posts);
    });
}

#[test]
fn memoise_computes_once() {
    let stdout = Larder::run("memoise").succeed().stdout;
    assert_eq!(stdout.matches("computing").count(), 1, "{stdout}");
    assert_eq!(stdout.matches("148933 primes").count(), 3, "{stdout}");
}

#[test]
fn two_caches_keeps_one_count_for_the_process_and_one_for_all() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two-caches/larder.toml");
    for run in 1..=2 {
        let larder = Larder::run_with(&["--config", example], "two-caches");
        let larder = larder.env("VALKEY_HOST", "127.0.0.1").env("VALKEY_PORT", server.port().to_string());
        let expected = format!("runs of this plugin in this process: 1, in all processes: {run}\n");
        assert_eq!(larder.succeed().stdout, expected);
    }
}

#[test]
fn async_closure_asks_once() {
    let stdout = Larder::run("async-closure").succeed().stdout;
    assert_eq!(stdout, "asking the weather service ...\nround 1: sunny, 21 °C\nround 2: sunny, 21 °C\n");
}

#[test]
fn exported_function_answers_by_name() {
    let price = |call: &str| Larder::new(["run", "--invoke", call]).arg(guest("exported_function"));
    assert_eq!(price("price(\"apple\")").succeed().stdout, "ok(45)\n");
    assert_eq!(price("price(\"pear\")").fail(1).stdout, "err(\"no such article\")\n");
}

#[tokio::test]
async fn http_pages_renders_a_page_once_for_two_processes() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let start = || ServeProcess::start_with(Larder::serve().config(&server.cache("c")).arg(guest("http-pages")));
    let (one, two) = (start(), start());
    let page = HttpResponse::ok("<h1>/home</h1>\n");
    let asked = tokio::join!(one.get("/home"), two.get("/home"), one.get("/home"), two.get("/home"));
    assert_eq!(asked, (page.clone(), page.clone(), page.clone(), page));
    let printed = one.terminate().await.stdout + &two.terminate().await.stdout;
    assert_eq!(printed, "http-pages: rendering /home\n");
}

#[tokio::test]
async fn http_concurrent_renders_a_page_once_and_answers_others_meanwhile() {
    let host = ServeProcess::start_with(Larder::serve().arg(guest("http_concurrent")));
    let page = |path: &str| HttpResponse::ok(&format!("<h1>{path}</h1>\n"));
    assert_eq!(host.get("/home").await, page("/home"));
    let slow = async { tokio::join!(host.get("/slow"), host.get("/slow"), host.get("/slow")) };
    let meanwhile = async { tokio::join!(host.get("/home"), host.get("/home")) };
    let (slow, meanwhile) = tokio::join!(slow, meanwhile);
    assert_eq!(slow, (page("/slow"), page("/slow"), page("/slow")));
    assert_eq!(meanwhile, (page("/home"), page("/home")));
    let printed = host.terminate().await.stdout;
    assert_eq!(printed, "http_concurrent: rendering /home\nhttp_concurrent: rendering /slow\n");
}

#[tokio::test]
async fn http_rates_answers_with_the_old_rates_until_the_next_are_stored() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut host = ServeProcess::start_with(Larder::serve().config(&server.cache("c")).arg(guest("http-rates")));
    let mut client = server.client();
    let mut stored = || -> String {
        let stored: String = redis::cmd("GET").arg("cache:rates").query(&mut client).unwrap();
        serde_json::from_str(&stored).unwrap()
    };
    let mut last = host.get("/").await;
    host.expect_line("http-rates: fetching the rates").await;
    let (mut values, mut fetches) = (1, 1);
    // One request at a time. The one that fetches the rates has its answer while the rates of before are still stored. On a
    // busy machine the new ones may be stored before the test looks; then the next refresh is looked at.
    let answered_first = async {
        loop {
            let answer = host.get("/").await;
            let is_old = answer == last && stored() == last.body;
            if answer != last {
                (values, last) = (values + 1, answer);
            }
            let mut has_begun = false;
            while host.process().try_read_line().is_some() {
                (fetches, has_begun) = (fetches + 1, true);
            }
            if has_begun && is_old {
                return;
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, answered_first).await.unwrap();
    let next = async {
        loop {
            let answer = host.get("/").await;
            if answer != last {
                return answer;
            }
        }
    };
    let next = tokio::time::timeout(TEST_TIMEOUT, next).await.unwrap();
    assert_eq!((next.status, stored()), (200, next.body));
    // One for each value, and one more if the last answer was stale again.
    fetches += host.terminate().await.stdout.matches("fetching the rates").count();
    assert!((values + 1..=values + 2).contains(&fetches), "{fetches} fetches of {values} values");
}

#[test]
fn embed_runtime_shares_its_cache_and_clears_it() {
    let output = Command::new(program().with_file_name("embed-runtime")).arg(guest("memoise")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout.matches("computing").count(), 1, "{stdout}");
    assert!(stdout.ends_with("computed: 1\ncleared: 1\n"), "{stdout}");
}

#[test]
fn embed_host_shares_its_cache_between_two_runs() {
    let program = program().with_file_name("embed-host");
    let output = Command::new(program).arg(guest("memoise")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("run 2\n"), "{stdout}");
    assert_eq!(stdout.matches("computing").count(), 1, "{stdout}");
}
