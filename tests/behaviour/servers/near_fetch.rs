//! Changes of a key while the near tier fetches it.

use std::time::Duration as StdDuration;

use larder_host::cache::Duration;
use larder_tests::{Fault, Kind, Relay, Server};

use super::near::{get, near_cache, reads};
use crate::backends::{bytes, over_every_kind, view, within};

over_every_kind! {
    a_change_during_a_fetch_keeps_its_value_out,
}

/// On a slow network the change comes when the server has executed the read, and its reply is on the way.
async fn a_change_during_a_fetch_keeps_its_value_out(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let relay = Relay::to(server.port());
    let toml = server.cache("c").replace(&format!("port = {}", server.port()), &format!("port = {}", relay.port()));
    // What is kept by mistake is served for long.
    let cache = view(&near_cache(&toml, "timeout = \"20s\"\nnear = { max_staleness = \"60s\" }").await);
    let mut client = server.client();
    let mut run = |command: &[&str]| ::redis::cmd(command[0]).arg(&command[1..]).exec(&mut client).unwrap();
    relay.set_fault(Fault::Delay(StdDuration::from_millis(50)));
    for change in ["foreign set", "foreign clear", "set", "clear", "clear-pattern"] {
        run(&["SET", "cache:k", "old"]);
        cache.clear("k").await.unwrap();
        run(&["SET", "cache:k", "old"]);
        let before = reads(&server);
        let fetch = tokio::spawn({
            let cache = cache.clone();
            async move { get(&cache, "k").await }
        });
        while reads(&server) == before {
            tokio::task::yield_now().await;
        }
        let expected = match change {
            "foreign set" => {
                run(&["SET", "cache:k", "new"]);
                Some("new")
            }
            "foreign clear" => {
                run(&["DEL", "cache:k"]);
                None
            }
            "set" => {
                cache.set("k", bytes("new"), Duration::Default).await.unwrap();
                Some("new")
            }
            "clear" => {
                assert!(cache.clear("k").await.unwrap());
                None
            }
            _ => {
                assert_eq!(cache.clear_pattern("k*").await.unwrap(), 1);
                None
            }
        };
        // The announcement of another program's change follows the reply.
        let is_own = !change.starts_with("foreign");
        if !is_own {
            assert_eq!(within(fetch).await.unwrap().as_deref(), Some("old"), "{change}");
            within(async { while get(&cache, "k").await.as_deref() != expected {} }).await;
        }
        for _ in 0..3 {
            assert_eq!(get(&cache, "k").await.as_deref(), expected, "{change}");
        }
    }
}
