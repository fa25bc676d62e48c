//! The file of a plugin is replaced while requests run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_tests::{Client, HttpResponse, Larder, ServeProcess, TEST_TIMEOUT, guest};

/// Replaces a file atomically.
fn replace(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn start() -> (ServeProcess, [PathBuf; 2]) {
    start_with(Larder::serve())
}

/// The guest `http` in two files, each under a route of the file's name.
fn start_with(larder: Larder) -> (ServeProcess, [PathBuf; 2]) {
    let table = |name: &str| format!("[plugins.{name}]\npath = \"{name}.wasm\"\nroute = \"/{name}\"\n");
    let larder = larder.config(&(table("changed") + &table("constant") + "[sandbox]\ntimeout = \"10m\"\n"));
    let files = ["changed", "constant"].map(|name| larder.folder().join(format!("{name}.wasm")));
    for file in &files {
        std::fs::copy(guest("http"), file).unwrap();
    }
    (ServeProcess::start_with(larder), files)
}

async fn is_answered(serving: &ServeProcess, path: &str, expected: &HttpResponse) {
    // One connection for all requests: each connection takes a port of the system.
    let client = Client::connect(serving.address()).await;
    let answered = async {
        while client.get(path).await.unwrap() != *expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, answered).await.expect("the new plugin answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_is_served_after_hang_up_and_no_request_is_dropped() {
    let (mut serving, [changed, _]) = start();
    let client = Client::connect(serving.address()).await;
    let running = tokio::spawn(async move { client.get("/changed/do/doze/2000").await.unwrap() });
    serving.expect_line("changed: dozing").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (client, is_over) = (Client::connect(serving.address()).await, Arc::clone(&is_over));
        async move {
            let mut answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                for path in ["/changed/do/hello", "/constant/do/hello"] {
                    assert_eq!(client.get(path).await.unwrap().status, 200);
                    answered += 1;
                }
            }
            answered
        }
    });
    replace(&changed, &std::fs::read(guest("http-pages")).unwrap());
    assert_eq!(serving.get("/changed/do/hello").await, HttpResponse::ok("hello\n"));
    serving.process().signal("-HUP");
    is_answered(&serving, "/changed/do/hello", &HttpResponse::ok("<h1>/changed/do/hello</h1>\n")).await;
    assert_eq!(running.await.unwrap(), HttpResponse::ok("dozed"));
    is_over.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
    assert_eq!(serving.get("/constant/do/hello").await, HttpResponse::ok("hello\n"));
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("reloaded plugin `changed`"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_is_logged_and_the_previous_version_keeps_running() {
    // The longer route is read first, so it has been read when the other one has changed.
    let (mut serving, [changed, constant]) = start();
    replace(&constant, b"no component");
    replace(&changed, &std::fs::read(guest("http-pages")).unwrap());
    serving.process().signal("-HUP");
    is_answered(&serving, "/changed/page", &HttpResponse::ok("<h1>/changed/page</h1>\n")).await;
    assert_eq!(serving.get("/constant/do/hello").await, HttpResponse::ok("hello\n"));
    std::fs::remove_file(&changed).unwrap();
    replace(&constant, &std::fs::read(guest("http-pages")).unwrap());
    serving.process().signal("-HUP");
    is_answered(&serving, "/constant/page", &HttpResponse::ok("<h1>/constant/page</h1>\n")).await;
    assert_eq!(serving.get("/changed/page").await.status, 200);
    let finished = serving.terminate().await;
    let log = &finished.stderr;
    assert!(
        log.contains("kept the previous version of plugin `constant`: cannot load plugin `constant.wasm`: this is not"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_file_that_is_replaced_is_served_and_requests_keep_their_plugin() {
    let (mut serving, [changed, _]) = start_with(Larder::serve().arg("--watch"));
    let mut running = TcpStream::connect(serving.address()).unwrap();
    running.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let head = "POST /changed/do/attend HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    running.write_all(head.as_bytes()).unwrap();
    serving.expect_line("changed: attending").await;
    let [pages, http] = ["http-pages", "http"].map(|name| std::fs::read(guest(name)).unwrap());
    let page = HttpResponse::ok("<h1>/changed/do/hello</h1>\n");
    // First by a rename, then by writing to the same file.
    replace(&changed, &pages);
    is_answered(&serving, "/changed/do/hello", &page).await;
    running.write_all(b"0\r\n\r\n").unwrap();
    let mut said = String::new();
    running.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("attended"), "{said}");
    std::fs::write(&changed, &http).unwrap();
    is_answered(&serving, "/changed/do/hello", &HttpResponse::ok("hello\n")).await;
    // A link that leads elsewhere is another file as well.
    let elsewhere = changed.with_extension("elsewhere");
    std::fs::write(&elsewhere, &pages).unwrap();
    std::fs::remove_file(&changed).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &changed).unwrap();
    is_answered(&serving, "/changed/do/hello", &page).await;
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("reloaded plugin `changed`").count(), 3, "{}", finished.stderr);
    assert!(!finished.stderr.contains("plugin `constant`"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_watched_file_is_logged_once_and_the_previous_version_keeps_running() {
    let (serving, [changed, constant]) = start_with(Larder::serve().arg("--watch"));
    let [pages, http] = ["http-pages", "http"].map(|name| std::fs::read(guest(name)).unwrap());
    // Half of a file, by a writer that stops.
    std::fs::write(&constant, &http[..http.len() / 2]).unwrap();
    // Each of these is seen later than the half, by some looks.
    for (bytes, body) in [(&pages, "<h1>/changed/do/hello</h1>\n"), (&http, "hello\n")] {
        replace(&changed, bytes);
        is_answered(&serving, "/changed/do/hello", &HttpResponse::ok(body)).await;
    }
    assert_eq!(serving.get("/constant/do/hello").await, HttpResponse::ok("hello\n"));
    std::fs::write(&constant, &pages).unwrap();
    is_answered(&serving, "/constant/do/hello", &HttpResponse::ok("<h1>/constant/do/hello</h1>\n")).await;
    let finished = serving.terminate().await;
    assert_eq!(
        finished.stderr.matches("kept the previous version of plugin `constant`: ").count(),
        1,
        "{}",
        finished.stderr
    );
    assert_eq!(finished.stderr.matches("reloaded plugin `constant`").count(), 1, "{}", finished.stderr);
}
