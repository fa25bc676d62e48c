//! grafana.json and alarms.yaml in a live Prometheus that scrapes two hosts.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use larder_tests::{Client, Kind, Server, TEST_TIMEOUT, skip};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::compose::{HOSTS, compose, host};
use super::*;

/// A Prometheus with the configuration of `deploy/`, which scrapes other hosts and every second. Dropping it kills it.
struct Prometheus {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it. `None`, with a note on standard error, if it is not installed. Panics in CI.
    async fn start(hosts: &[String]) -> Option<Self> {
        if Command::new("prometheus").arg("--version").output().is_err() {
            skip("`prometheus` is not installed");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let alarms = root().join("deploy/alarms.yaml").display().to_string();
        let config = [
            ("scrape_interval: 10s", "scrape_interval: 1s\n  evaluation_interval: 1s"),
            ("/etc/prometheus/alarms.yaml", &alarms),
            (r#"["larder-1:9090", "larder-2:9090"]"#, &format!("{hosts:?}")),
        ];
        let config = config.iter().fold(read("deploy/prometheus.yaml"), |config, (old, new)| {
            assert!(config.contains(old), "`{old}` is not in deploy/prometheus.yaml");
            config.replace(old, new)
        });
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=error");
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut prometheus = Self { child, address, _folder: folder };
        let ready = async {
            while prometheus.get("/-/ready").await.is_none() {
                assert!(prometheus.child.try_wait().unwrap().is_none(), "Prometheus has ended");
                pause().await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, ready).await.expect("Prometheus is ready");
        Some(prometheus)
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = Client::try_connect(self.address.parse().unwrap()).await?.get(path).await.ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    async fn ask(&self, path: &str) -> Value {
        let body = self.get(path).await.unwrap_or_else(|| panic!("no answer to {path}"));
        serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
    }

    /// The values that a panel shows, without those that are not numbers.
    async fn values(&self, panel: &Value) -> Vec<f64> {
        let mut values = Vec::new();
        for target in list(&panel["targets"]) {
            // Grafana fills it in by the interval of the scrapes.
            let query = text(&target["expr"]).replace("$__rate_interval", "1m");
            let answer = self.ask(&format!("/api/v1/query?query={}", encoded(&query))).await;
            let shown = list(&answer["result"]).iter().map(|sample| text(&sample["value"][1]).parse::<f64>().unwrap());
            values.extend(shown.filter(|value| !value.is_nan()));
        }
        values
    }

    /// The titles of the panels without a value that `is_enough`.
    async fn panels_without(&self, is_enough: impl Fn(f64) -> bool) -> BTreeSet<String> {
        let mut without = BTreeSet::new();
        for panel in panels() {
            if !self.values(&panel).await.iter().any(|value| is_enough(*value)) {
                without.insert(text(&panel["title"]).to_owned());
            }
        }
        without
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn encoded(query: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    query.bytes().map(encode).collect()
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    list(&dashboard["panels"]).to_owned()
}

/// The titles of the panels that say that they are empty without a RAM cache, a near tier, or a plugin with `reuse`. No other
/// panel may be empty.
fn may_be_empty() -> BTreeSet<String> {
    let without =
        ["a cache of type `ram`", "a near tier", "a plugin with `reuse`"].map(|what| format!("Empty without {what}."));
    let says_so = |panel: &Value| {
        panel["description"].as_str().is_some_and(|text| without.iter().any(|without| text.ends_with(without)))
    };
    panels().iter().filter(|panel| says_so(panel)).map(|panel| text(&panel["title"]).to_owned()).collect()
}

#[tokio::test]
async fn every_panel_shows_the_hosts_of_compose_or_says_why_not() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let (compose, port) = (compose(), server.port().to_string());
    let place = [("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", port.as_str())];
    let hosts = HOSTS.map(|name| host(&compose["services"][name]).start(&[], &place));
    let Some(prometheus) = Prometheus::start(&hosts.each_ref().map(|host| host.metrics.clone())).await else { return };
    let shown = async {
        loop {
            for host in &hosts {
                host.serving.get("/hello").await;
            }
            let empty = prometheus.panels_without(|_| true).await;
            if empty.is_subset(&may_be_empty()) {
                return empty;
            }
            pause().await;
        }
    };
    let empty = tokio::time::timeout(TEST_TIMEOUT, shown).await;
    let Ok(empty) = empty else { panic!("empty: {:?}", prometheus.panels_without(|_| true).await) };
    assert_eq!(empty, may_be_empty(), "these have data, too");
}

/// Two hosts and their clients do what each panel is about, and one alarm fires.
#[tokio::test]
async fn every_panel_shows_what_it_is_about() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    // The instance that holds a vacancy below runs until the end.
    let serve = "[serve]\nmax_queued_output = \"32KiB\"\n[sandbox]\ntimeout = \"10m\"\n";
    let ram = format!("[caches.c]\ntype = \"ram\"\nmax_bytes = \"4KiB\"\n[plugins.http]\nreuse = {{}}\n{serve}");
    let ram = ServeProcess::start_with_metrics(&ram);
    let mut shared = ServeProcess::start_with_metrics(&(server.cache("c") + "near = {}\n" + serve));
    let hosts = [&ram, &shared].map(|host| host.metrics_address().to_string());
    let Some(prometheus) = Prometheus::start(&hosts).await else { return };
    // A vacancy that is held, in an instance that runs, over a connection that is open.
    let client = Client::connect(ram.address()).await;
    let held = tokio::spawn(async move { client.get("/hold/k").await });
    let shown = async {
        let mut missing = panels().iter().map(|panel| text(&panel["title"]).to_owned()).collect::<BTreeSet<_>>();
        for round in 0_u32.. {
            for path in [
                "/visit/k",
                "/visit/k",
                "/many/k",
                "/compute/k",
                "/refresh/r",
                "/refresh/r",
                "/visit/",
                "/panic",
                "/fetch?http://localhost/",
            ] {
                ram.get(path).await;
                shared.get(path).await;
            }
            // More than the RAM cache holds, and more output than the queue.
            for key in 0..40 {
                ram.get(&format!("/visit/{round}-{key}")).await;
            }
            ram.get("/chatter/100000").await;
            malformed(ram.address()).await;
            shared.process().signal("-HUP");
            if missing.contains("Reconnects and degraded reads") {
                server.kill();
                shared.get("/visit/k").await;
                server.restart();
            }
            missing = prometheus.panels_without(|value| value > 0.0).await;
            if missing.is_empty() {
                return;
            }
            println!("round {round}: {missing:?}");
            pause().await;
        }
    };
    let shown = tokio::time::timeout(TEST_TIMEOUT, shown).await;
    assert!(shown.is_ok(), "without data: {:?}", prometheus.panels_without(|value| value > 0.0).await);

    let fired = async {
        loop {
            let groups = prometheus.ask("/api/v1/rules").await["groups"].clone();
            let rules = list(&groups[0]["rules"]);
            let plugin_fails = rules.iter().find(|rule| rule["name"] == "LarderPluginFails").unwrap();
            if plugin_fails["state"] == "firing" && rules.iter().all(|rule| rule["health"] == "ok") {
                return;
            }
            pause().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, fired).await.expect("each rule is evaluated, and a trap is an alarm");
    held.abort();
}

/// Sends what is not HTTP.
async fn malformed(address: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\x01\x02\x03\r\n\r\n").await.unwrap();
}
