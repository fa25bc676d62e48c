//! The commands that a server receives from an idle host.

use std::time::{Duration, Instant};

use larder_host::{Config, connect_cache};

use crate::backend::view;
use crate::{info, servers, table, version};

const DURATION: Duration = Duration::from_secs(8);

pub(crate) async fn idle() {
    table::heading("Commands a second of an idle host that has read a key, with the default max_staleness of 1 s");
    table::columns(&["commands/s"]);
    for server in servers() {
        for (name, more) in [
            ("without a near tier", ""),
            ("near", "near = {}\n"),
            ("near, connections = 4", "near = {}\nconnections = 4\n"),
        ] {
            let config = Config::from_toml(&format!("{}{more}", server.cache("cache"))).unwrap();
            let cache = view(&connect_cache("cache", &config.caches["cache"]).await.unwrap());
            // Over the regular and over the bulk connection.
            cache.get("k").await.unwrap();
            let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
            cache.get_many(&many).await.unwrap();
            let mut client = server.client();
            let mut executed = || info(&mut client, "stats", "total_commands_processed");
            // The first connection opens others when it is used.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (before, start) = (executed(), Instant::now());
            tokio::time::sleep(DURATION).await;
            // One of them is the `INFO` itself.
            let commands = executed() - before - 1;
            let rate = commands as f64 / start.elapsed().as_secs_f64();
            table::row(&version(&server), name, &[format!("{rate:.1}")]);
        }
    }
}
