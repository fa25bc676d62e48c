//! Streams that take nothing: nobody reads stdout or stderr, they are closed, or their disk is full.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use larder_tests::{Client, HttpResponse, Kind, Larder, Server, TEST_TIMEOUT, free_port, guest, wait_for};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A `larder` process whose output is read only by the test. Dropping this value kills it.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
    _folder: TempDir,
}

impl Process {
    fn start(larder: Larder) -> Self {
        Self::start_with(larder, |command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        })
    }

    fn start_with(larder: Larder, streams: impl FnOnce(&mut Command)) -> Self {
        let (mut command, folder) = larder.into_command();
        streams(&mut command);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stdin, stdout, stderr, _folder: folder }
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().expect("stdout is open").read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn write_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn signal(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the exit status.
    fn exited(&mut self) -> Option<i32> {
        wait_for("larder has exited", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Two plugins with a path each, and the metrics port.
struct Host {
    process: Process,
    address: SocketAddr,
    metrics: SocketAddr,
}

fn config(more: &str) -> String {
    let path = guest("http").display().to_string();
    let plugin = |name: &str| format!("[plugins.{name}]\npath = {path:?}\nroute = \"/{name}\"\n");
    format!("{}{}{more}", plugin("loud"), plugin("quiet"))
}

impl Host {
    /// Starts a host, of which only the first two lines of stdout are read.
    fn start(more: &str) -> Self {
        let larder = Larder::serve().config(&config(more)).arg("--metrics-addr").arg("127.0.0.1:0");
        let mut process = Process::start(larder);
        let address = |line: String, start: &str| {
            line.strip_prefix(start).unwrap_or_else(|| panic!("{line}")).trim_end_matches("/metrics").parse().unwrap()
        };
        let (first, second) = (process.read_line(), process.read_line());
        Self {
            process,
            address: address(first, "listening on http://"),
            metrics: address(second, "metrics on http://"),
        }
    }

    /// Starts a host with these streams, and waits until it takes connections.
    async fn start_with(streams: impl FnOnce(&mut Command)) -> Self {
        let [address, metrics] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let larder = Larder::new(["serve", "--addr", &address.to_string(), "--metrics-addr", &metrics.to_string()]);
        let process = Process::start_with(larder.config(&config("")), streams);
        wait_for("the host listens", || TcpStream::connect(address).ok());
        Self { process, address, metrics }
    }

    async fn print(&self, bytes: usize) {
        let path = format!("/loud/do/print/{}", "x".repeat(bytes));
        assert_eq!(get(self.address, &path).await, HttpResponse::ok("printed"));
    }

    /// The other plugin and the metrics port answer.
    async fn assert_serves(&self) {
        assert_eq!(get(self.address, "/quiet/do/hello").await, HttpResponse::ok("hello\n"));
        assert_eq!(get(self.metrics, "/healthz").await, HttpResponse::ok("alive\n"));
        assert_eq!(get(self.metrics, "/readyz").await.status, 200);
    }

    async fn metric(&self, name: &str) -> f64 {
        let export = get(self.metrics, "/metrics").await.body;
        let value = export.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Sends SIGTERM, and asserts that the host shuts down as always.
    fn assert_ends(&mut self) {
        let began = Instant::now();
        self.process.signal();
        assert_eq!(self.process.exited(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

async fn get(address: SocketAddr, path: &str) -> HttpResponse {
    Client::connect(address).await.get(path).await.unwrap()
}

const DROPPED_BY_LOUD: &str = "larder_dropped_output_bytes_total{plugin=\"loud\",stream=\"stdout\"}";

#[tokio::test]
async fn stdout_that_is_not_read_holds_up_no_request_and_no_signal() {
    let mut host = Host::start("");
    let mut printed = 0.0;
    // The pipe, and the plugin's share of the queue.
    while host.metric(DROPPED_BY_LOUD).await == 0.0 {
        for _ in 0..20 {
            host.print(7_500).await;
            printed += 7_500.0;
        }
        assert!(printed < 4e6, "nothing was dropped after {printed} bytes");
    }
    assert!(printed > 300e3, "{printed}");
    host.assert_serves().await;
    // What another plugin prints has room.
    assert_eq!(get(host.address, "/quiet/do/print/mine").await, HttpResponse::ok("printed"));
    assert_eq!(host.metric("larder_dropped_output_bytes_total{plugin=\"quiet\",stream=\"stdout\"}").await, 0.0);
    host.assert_ends();
}

#[tokio::test]
async fn what_was_dropped_is_in_the_log_when_the_reader_goes_on() {
    let mut host = Host::start("");
    for _ in 0..100 {
        host.print(7_500).await;
    }
    let mut stdout = host.process.stdout.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let mut stderr = host.process.stderr.take().unwrap();
    let mut line = String::new();
    while !line.contains("bytes of output of plugin `loud`: stdout was not read fast enough") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the log ended");
    }
    assert!(line.contains(" WARN larder_host::console"), "{line}");
}

#[tokio::test]
async fn stderr_that_is_not_read_holds_up_no_request_and_no_signal() {
    let mut host = Host::start("[serve]\nmax_queued_output = \"256KiB\"\n");
    let path = format!("/quiet/do/hello/{}", "x".repeat(2_000));
    let client = Client::connect(host.address).await;
    for _ in 0..1_000 {
        assert_eq!(client.get(&path).await.unwrap(), HttpResponse::ok("hello\n"));
    }
    assert!(host.metric("larder_dropped_log_lines_total{stream=\"stderr\"}").await > 100.0);
    host.assert_serves().await;
    host.assert_ends();
}

#[tokio::test]
async fn max_queued_output_bounds_what_waits_for_a_reader() {
    let host = Host::start("[serve]\nmax_queued_output = \"32KiB\"\n");
    for _ in 0..60 {
        host.print(3_000).await;
    }
    // 180,000 bytes: the pipe has 64 KiB, and the queue at most as much.
    let dropped = host.metric(DROPPED_BY_LOUD).await;
    assert!(dropped > 40_000.0, "{dropped}");
}

#[tokio::test]
async fn a_closed_stdout_is_no_error_of_a_plugin() {
    let mut host = Host::start("");
    drop(host.process.stdout.take());
    for _ in 0..10 {
        host.print(1_000).await;
    }
    let dropped = async {
        while host.metric(DROPPED_BY_LOUD).await < 10_000.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, dropped).await.expect("what could not be written is counted");
    host.assert_serves().await;
    host.assert_ends();
}

#[tokio::test]
async fn a_full_disk_is_no_error_of_a_plugin() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut host = Host::start_with(|command| {
        command.stdout(full()).stderr(full());
    })
    .await;
    for _ in 0..10 {
        host.print(1_000).await;
    }
    host.assert_serves().await;
    host.assert_ends();
}

/// The port and the signals are on a thread of their own.
#[tokio::test]
async fn health_and_signals_work_beside_plugins_that_spin() {
    let mut host = Host::start("[serve]\nshutdown_timeout = \"1m\"\n");
    let mut spinning = JoinSet::new();
    for _ in 0..20 {
        let client = Client::connect(host.address).await;
        spinning.spawn(async move { client.get("/loud/do/spin").await });
    }
    let all_spin = async {
        while host.metric("larder_instances{plugin=\"loud\"}").await < 20.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, all_spin).await.expect("20 plugins spin");
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        assert_eq!(get(host.metrics, "/healthz").await, HttpResponse::ok("alive\n"));
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("/healthz beside 20 plugins that spin: median {:?}, p99 {:?}", took[50], took[98]);
    // The goal is 50 ms. Other tests run at the same time; `make bench-siege` measures alone.
    assert!(took[98] < Duration::from_secs(1), "{took:?}");
    let began = Instant::now();
    host.process.signal();
    let readiness = async {
        while get(host.metrics, "/readyz").await.body != "the host is shutting down\n" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, readiness).await.expect("the first signal is acted on");
    println!("the first SIGTERM was acted on after {:?}", began.elapsed());
    host.process.signal();
    assert_eq!(host.process.exited(), Some(1));
    println!("the second one ended the process after {:?}", began.elapsed());
}

/// Connections that send nothing do not keep out a probe, and a probe that closes its side has its answer.
#[tokio::test]
async fn the_metrics_port_has_room_for_a_further_connection() {
    let host = Host::start("");
    let mut silent: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(host.metrics).unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(get(host.metrics, "/healthz").await, HttpResponse::ok("alive\n"));
    }
    silent[0].set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    assert!(matches!(silent[0].read(&mut [0]), Ok(0) | Err(_)), "the oldest is closed");

    let asked = |request: String| {
        let mut stream = TcpStream::connect(host.metrics).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        // The host may have answered and closed the connection already.
        let _closed = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        // A connection that is closed with a part of the request unread may be reset.
        let _reset = stream.read_to_string(&mut answer);
        answer
    };
    assert!(asked("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()).starts_with("HTTP/1.1 200 OK"));
    let long = asked(format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(17_000)));
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431 "), "{long}");
}

#[test]
fn a_run_is_stopped_after_its_time_also_when_its_output_is_not_read() {
    let larder = Larder::run("hostile").config("[sandbox]\ntimeout = \"1s\"\n").arg("write stdout 1000000");
    let mut run = Process::start(larder);
    assert_eq!(run.exited(), Some(1));
    let mut stderr = String::new();
    run.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("`timeout` of `[sandbox]`"), "{stderr}");
}

#[test]
fn a_slow_reader_of_a_run_gets_every_byte_in_order() {
    let lines: Vec<String> = (0..16).map(|line| format!("{line}:{}", "0123456789".repeat(10_000))).collect();
    let larder = lines.iter().fold(Larder::run("surroundings").arg("args"), |larder, line| larder.arg(line));
    let mut run = Process::start(larder);
    let mut stdout = run.stdout.take().unwrap().into_inner();
    let (mut text, mut piece) = (Vec::new(), [0; 1000]);
    loop {
        match stdout.read(&mut piece).unwrap() {
            0 => break,
            read => text.extend_from_slice(&piece[..read]),
        }
        std::thread::yield_now();
    }
    assert_eq!(run.exited(), Some(0));
    assert!(String::from_utf8(text).unwrap() == lines.join("\n") + "\n");
}

#[test]
fn a_run_whose_reader_has_gone_gets_a_closed_stream() {
    let larder = Larder::run("hostile").arg("write stdout 1000000");
    let mut run = Process::start(larder);
    drop(run.stdout.take());
    let mut stderr = String::new();
    run.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(run.exited(), Some(1));
    assert!(stderr.contains("can write") && stderr.contains("trapped"), "{stderr}");
}

/// Its output waits, and it keeps neither its memory nor the lease that other processes wait for.
#[cfg(target_os = "linux")]
#[test]
fn a_run_that_has_ended_holds_no_lease_and_no_memory_while_its_output_is_not_read() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let larder = Larder::run("misbehave").config(&server.cache("c"));
    let mut run = Process::start(["leave", "k", "120000"].iter().fold(larder, Larder::arg));
    let mut looking = server.client();
    let mut exists = |key: &str| redis::cmd("EXISTS").arg(key).query::<bool>(&mut looking).unwrap();
    wait_for("the plugin has printed", || exists("cache:left").then_some(()));
    wait_for("the lease is released", || (!exists("cache:k")).then_some(()));
    let status = format!("/proc/{}/status", run.child.id());
    wait_for("the memory is given back", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        (line.unwrap().parse::<u64>().unwrap() < 24 << 10).then_some(())
    });
    assert!(run.child.try_wait().unwrap().is_none(), "its output was not read");
    let mut printed = Vec::new();
    run.stdout.take().unwrap().read_to_end(&mut printed).unwrap();
    assert!(printed == vec![b'x'; 120_000], "{} bytes", printed.len());
    assert_eq!(run.exited(), Some(0));
}

/// Another process waits for the value instead of computing it too.
#[test]
fn a_holder_whose_output_is_not_read_keeps_its_lease() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c") + "lease = \"1s\"\n";
    Larder::run("script").config(&config).arg("set-large big 500000").succeed();
    let mut holder = Process::start(Larder::run("session").config(&config));
    holder.write_line("take k");
    assert_eq!(holder.read_line(), "vacant");
    holder.write_line("get big");
    let mut looking = server.client();
    let mut key_lifetime = || redis::cmd("PTTL").arg("cache:k").query::<i64>(&mut looking).unwrap();
    let (mut renewals, mut before) = (0, key_lifetime());
    // Far more than one lease lasts without a renewal.
    wait_for("the lease is renewed", || {
        let now = key_lifetime();
        assert!(now > 0, "the lease was lost after {renewals} renewals");
        renewals += usize::from(now > before);
        before = now;
        (renewals == 9).then_some(())
    });
    holder.write_line("fill k v");
    while holder.read_line() != "filled true" {}
}
