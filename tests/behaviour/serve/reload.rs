//! Files of plugins that are replaced while requests run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_tests::{Answer, Client, Larder, PATIENCE, Serving, guest};

/// Puts a file in the place of another at once.
fn replace(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// The guest `http` in two files, each under a route of the file's name.
fn start() -> (Serving, [PathBuf; 2]) {
    let table = |name: &str| format!("[plugins.{name}]\npath = \"{name}.wasm\"\nroute = \"/{name}\"\n");
    let larder = Larder::serve().config(&(table("changed") + &table("constant")));
    let files = ["changed", "constant"].map(|name| larder.folder().join(format!("{name}.wasm")));
    for file in &files {
        std::fs::copy(guest("http"), file).unwrap();
    }
    (Serving::start_with(larder), files)
}

async fn is_answered(serving: &Serving, path: &str, expected: &Answer) {
    let answered = async { while serving.get(path).await != *expected {} };
    tokio::time::timeout(PATIENCE, answered).await.expect("the new plugin answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_is_served_after_hang_up_and_no_request_is_dropped() {
    let (mut serving, [changed, _]) = start();
    let client = Client::connect(serving.address()).await;
    let running = tokio::spawn(async move { client.get("/changed/do/doze/2000").await.unwrap() });
    serving.says("changed: dozing").await;
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
    assert_eq!(serving.get("/changed/do/hello").await, Answer::ok("hello\n"));
    serving.running().signal("-HUP");
    is_answered(&serving, "/changed/do/hello", &Answer::ok("<h1>/changed/do/hello</h1>\n")).await;
    assert_eq!(running.await.unwrap(), Answer::ok("dozed"));
    is_over.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
    assert_eq!(serving.get("/constant/do/hello").await, Answer::ok("hello\n"));
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("plugin `changed` is loaded anew"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_keeps_the_old_plugin_running_and_says_so() {
    // The longer route is read first, so that it was read when the other one has changed.
    let (mut serving, [changed, constant]) = start();
    replace(&constant, b"no component");
    replace(&changed, &std::fs::read(guest("http-pages")).unwrap());
    serving.running().signal("-HUP");
    is_answered(&serving, "/changed/page", &Answer::ok("<h1>/changed/page</h1>\n")).await;
    assert_eq!(serving.get("/constant/do/hello").await, Answer::ok("hello\n"));
    std::fs::remove_file(&changed).unwrap();
    replace(&constant, &std::fs::read(guest("http-pages")).unwrap());
    serving.running().signal("-HUP");
    is_answered(&serving, "/constant/page", &Answer::ok("<h1>/constant/page</h1>\n")).await;
    assert_eq!(serving.get("/changed/page").await.status, 200);
    let finished = serving.terminate().await;
    let log = &finished.stderr;
    assert!(
        log.contains("plugin `constant` stays as it was: cannot load plugin `constant.wasm`: this is not"),
        "{log}"
    );
}
