//! What hosts cost a server: each is a connection that tracks by key, as Larder does, or by prefix (`BCAST`).

use std::time::Duration;

use larder_tests::Server;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline};

use crate::{info, servers, table, version};

const HOSTS: [usize; 4] = [1, 10, 50, 200];

/// The pings of a host in a second, with the default `max_staleness`.
const PINGS: usize = 4;

const READS: usize = 5000;
const WRITES: usize = 3000;
/// Writes to keys that all hosts have read.
const WRITES_TO_ALL: usize = 200;
const IDLE_SECONDS: usize = 20;
const TRACKED_KEYS: usize = 5000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    ByKey,
    ByPrefix,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::None => "no tracking",
            Self::ByKey => "by key",
            Self::ByPrefix => "by prefix (BCAST)",
        }
    }
}

/// A server and the connections of hosts to it.
struct Bench {
    server: Server,
    control: redis::Connection,
    writer: MultiplexedConnection,
    hosts: Vec<MultiplexedConnection>,
    mode: Mode,
    /// What two `INFO` cost in commands, bytes in and bytes out.
    overhead: [f64; 3],
}

/// What the server has used, for one operation.
struct Cost {
    commands: f64,
    bytes_in: f64,
    bytes_out: f64,
    seconds: f64,
}

/// The rows of a section, of all modes and numbers of hosts.
type Rows = Vec<(String, String, Vec<String>)>;

pub(crate) async fn scale() {
    let mut sections: [(String, Rows); 4] = [
        "What a near miss costs the server",
        "What a write to a key that no host has read costs the server",
        "What a write to a key that all hosts have read costs the server",
        "What an idle host costs the server in a second",
    ]
    .map(|title| (format!("{title}, by the number of hosts"), Vec::new()));
    let mut memory: Rows = Vec::new();
    for server in servers() {
        let place = version(&server);
        let mut bench = Bench::new(server).await;
        let mut add = |section: usize, mode: Mode, hosts: usize, cost: Cost| {
            let what = format!("{}, {hosts} host{}", mode.name(), if hosts == 1 { "" } else { "s" });
            let numbers = [cost.commands, cost.bytes_in, cost.bytes_out].map(|number| format!("{number:.1}"));
            let numbers = numbers.into_iter().chain([table::time(cost.seconds)]).collect();
            sections[section].1.push((place.clone(), what, numbers));
        };
        bench.set_hosts(Mode::None, 0).await;
        let cost = bench.write(WRITES, "cache:unread").await;
        add(1, Mode::None, 0, cost);
        for mode in [Mode::ByKey, Mode::ByPrefix] {
            for hosts in HOSTS {
                bench.set_hosts(mode, hosts).await;
                let cost = bench.misses().await;
                add(0, mode, hosts, cost);
                let cost = bench.write(WRITES, "cache:unread").await;
                add(1, mode, hosts, cost);
                let cost = bench.write_to_all().await;
                add(2, mode, hosts, cost);
                let cost = bench.idle().await;
                add(3, mode, hosts, cost);
            }
        }
        for hosts in HOSTS {
            bench.set_hosts(Mode::ByKey, hosts).await;
            let [of_key, of_pair] = bench.memory().await;
            let name = format!("{hosts} host{}", if hosts == 1 { "" } else { "s" });
            memory.push((place.clone(), name, [of_key, of_pair].map(|bytes| format!("{bytes:.0}")).to_vec()));
        }
    }
    for (title, rows) in sections {
        table::heading(&title);
        table::columns(&["commands", "bytes in", "bytes out", "processor time"]);
        rows.iter().for_each(|(place, what, numbers)| table::row(place, what, numbers));
    }
    table::heading("Bytes of the tracking table, if each host has read the same keys of 26 bytes");
    table::columns(&["bytes a key", "bytes a key and host"]);
    memory.iter().for_each(|(place, what, numbers)| table::row(place, what, numbers));
}

impl Bench {
    async fn new(server: Server) -> Self {
        let (control, writer) = (server.client(), connect(&server).await);
        let mut bench = Self { server, control, writer, hosts: Vec::new(), mode: Mode::None, overhead: [0.0; 3] };
        let before = bench.used();
        let after = bench.used();
        bench.overhead = [0, 1, 2].map(|nth| after[nth] - before[nth]);
        bench
    }

    async fn set_hosts(&mut self, mode: Mode, count: usize) {
        self.hosts.clear();
        let () = redis::cmd("FLUSHALL").query(&mut self.control).unwrap();
        for _ in 0..count {
            let mut host = connect(&self.server).await;
            let mut tracking = redis::cmd("CLIENT");
            match mode {
                Mode::None => {}
                Mode::ByKey => _ = tracking.arg(&["TRACKING", "ON", "OPTIN"]),
                Mode::ByPrefix => _ = tracking.arg(&["TRACKING", "ON", "BCAST", "PREFIX", "cache:"]),
            }
            let () = tracking.query_async(&mut host).await.unwrap();
            self.hosts.push(host);
        }
        self.mode = mode;
        self.settle().await;
    }

    /// Waits until the server has nothing to do: it has sent all announcements, and closed the connections of before.
    async fn settle(&mut self) {
        let mut before = 0.0;
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let clients = info(&mut self.control, "clients", "connected_clients");
            let used = processor_time(&self.server);
            // The server's timer and the `INFO` take a little.
            if used - before < 0.002 && clients as usize == self.hosts.len() + 2 {
                return;
            }
            before = used;
        }
    }

    /// Commands, bytes in and out, and processor time so far.
    fn used(&mut self) -> [f64; 4] {
        let control = &mut self.control;
        let commands = info(control, "stats", "total_commands_processed");
        let bytes = ["total_net_input_bytes", "total_net_output_bytes"].map(|name| info(control, "stats", name));
        [commands as f64, bytes[0] as f64, bytes[1] as f64, processor_time(&self.server)]
    }

    async fn cost(&mut self, operations: usize, operate: impl AsyncFnOnce(&mut Self)) -> Cost {
        self.settle().await;
        let before = self.used();
        let start = processor_time(&self.server);
        operate(self).await;
        // The last announcements follow the last reply.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let seconds = processor_time(&self.server) - start;
        let after = self.used();
        let [commands, bytes_in, bytes_out] =
            [0, 1, 2].map(|nth| (after[nth] - before[nth] - self.overhead[nth]) / operations as f64);
        Cost { commands, bytes_in, bytes_out, seconds: seconds / operations as f64 }
    }

    /// A read that fills a near tier.
    fn read(mode: Mode, key: &str) -> Pipeline {
        let mut read = redis::pipe();
        if mode == Mode::ByKey {
            read.cmd("CLIENT").arg(&["CACHING", "YES"]).ignore();
        }
        read.cmd("GET").arg(key).ignore().cmd("PTTL").arg(key).ignore();
        read
    }

    /// One read after the other, each by another host.
    async fn misses(&mut self) -> Cost {
        let value = "v".repeat(100);
        let mut fill = redis::pipe();
        (0..READS).for_each(|nth| {
            fill.cmd("SET").arg(key(nth)).arg(&value).ignore();
        });
        fill.exec_async(&mut self.writer).await.unwrap();
        let misses = async |bench: &mut Self| {
            let count = bench.hosts.len();
            for nth in 0..READS {
                let read = Self::read(bench.mode, &key(nth));
                read.exec_async(&mut bench.hosts[nth % count]).await.unwrap();
            }
        };
        self.cost(READS, misses).await
    }

    /// One write after the other.
    async fn write(&mut self, count: usize, key: &str) -> Cost {
        let value = "v".repeat(100);
        let writes = async |bench: &mut Self| {
            for nth in 0..count {
                let mut set = redis::cmd("SET");
                set.arg(format!("{key}:{nth}")).arg(&value);
                let () = set.query_async(&mut bench.writer).await.unwrap();
            }
        };
        self.cost(count, writes).await
    }

    async fn write_to_all(&mut self) -> Cost {
        self.write(WRITES_TO_ALL, "cache:read").await;
        self.read_by_all(WRITES_TO_ALL, |nth| format!("cache:read:{nth}")).await;
        self.write(WRITES_TO_ALL, "cache:read").await
    }

    async fn read_by_all(&mut self, count: usize, key: impl Fn(usize) -> String) {
        for host in &mut self.hosts {
            for first in (0..count).step_by(500) {
                let mut reads = redis::pipe();
                for nth in first..count.min(first + 500) {
                    if self.mode == Mode::ByKey {
                        reads.cmd("CLIENT").arg(&["CACHING", "YES"]).ignore();
                    }
                    reads.cmd("GET").arg(key(nth)).ignore();
                }
                reads.exec_async(host).await.unwrap();
            }
        }
    }

    /// The pings of all hosts, for one host and second.
    async fn idle(&mut self) -> Cost {
        let count = self.hosts.len();
        let pings = async |bench: &mut Self| {
            for _ in 0..IDLE_SECONDS * PINGS {
                // One by one, as those of real hosts come.
                for host in &mut bench.hosts {
                    let _pong: redis::Value = redis::cmd("PING").query_async(host).await.unwrap();
                }
            }
        };
        self.cost(IDLE_SECONDS * count, pings).await
    }

    /// The bytes of the tracking table for a key, and for a key of one host.
    async fn memory(&mut self) -> [f64; 2] {
        let used = |bench: &mut Self| info(&mut bench.control, "memory", "used_memory") as f64;
        // The buffers of the connections have grown.
        self.read_by_all(TRACKED_KEYS, |_| "other".to_owned()).await;
        self.settle().await;
        let before = used(self);
        self.read_by_all(TRACKED_KEYS, key).await;
        self.settle().await;
        let of_key = (used(self) - before) / TRACKED_KEYS as f64;
        [of_key, of_key / self.hosts.len() as f64]
    }
}

fn key(nth: usize) -> String {
    format!("cache:user:{nth:07}:profile")
}

async fn connect(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/?protocol=resp3", server.port())).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// The processor time of all threads of the server, in seconds.
fn processor_time(server: &Server) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("the server runs");
    let time = |thread: std::io::Result<std::fs::DirEntry>| {
        let times = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        times.split(' ').next().and_then(|time| time.parse::<f64>().ok()).expect("a time in nanoseconds")
    };
    threads.map(time).sum::<f64>() / 1e9
}
