//! What a plugin makes the host hold counts against its `max_memory`, and no call of a plugin holds up the others.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::{Duration, Instant};

use larder_tests::{Client, HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, guest};
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;

/// A server of two plugins: `hoard` at `/hoard`, with the limits of `[sandbox]`, and `http` at `/`.
struct Host(ServeProcess);

impl Host {
    /// Starts the server, and asks each plugin once, so that what is created on first use is there.
    async fn start(sandbox: &str) -> Self {
        Self::start_with(sandbox, "").await
    }

    async fn start_with(sandbox: &str, more: &str) -> Self {
        let table = |name: &str, route: &str| {
            format!("[plugins.{name}]\npath = {:?}\nroute = \"{route}\"\n", guest(name).display().to_string())
        };
        let config = format!("{}{}[sandbox]\n{sandbox}\n{more}", table("hoard", "/hoard"), table("http", "/"));
        let host = Self(ServeProcess::start_with(Larder::serve().config(&config)));
        assert_eq!(host.attack("nothing").await, HttpResponse::ok("0\n"));
        assert_eq!(host.0.get("/hello").await, HttpResponse::ok("hello\n"));
        host
    }

    async fn attack(&self, attack: &str) -> HttpResponse {
        self.0.get(&format!("/hoard/do/{attack}")).await
    }

    fn proc(&mut self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.process().id())
    }

    /// A line of the process's status, in bytes.
    fn status(&mut self, name: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Lets the peak begin anew, and returns what is resident now.
    fn reset_peak(&mut self) -> u64 {
        fs::write(self.proc("clear_refs"), "5").unwrap();
        self.status("VmRSS")
    }

    /// What `at_once` concurrent attacks add to the memory of the process at its peak, in bytes.
    async fn peak(&mut self, attack: &str, at_once: u64) -> u64 {
        let before = self.reset_peak();
        let mut attacks = JoinSet::new();
        for _ in 0..at_once {
            let client = Client::connect(self.0.address()).await;
            let path = format!("/hoard/do/{attack}");
            attacks.spawn(async move { client.get(&path).await.unwrap().status });
        }
        let mut statuses = Vec::new();
        while let Some(status) = attacks.join_next().await {
            statuses.push(status.unwrap());
        }
        let peak = self.status("VmHWM").saturating_sub(before);
        println!("{attack} x {at_once}: {} KiB, {statuses:?}", peak >> 10);
        peak
    }
}

/// Each fills one kind of resource or argument.
const ATTACKS: [&str; 16] = [
    "fields/9900/120000",
    "fields/9900/3000",
    "short-fields/9900/50",
    "list/1/100000",
    "clones/9900",
    "bodies/9900/65536",
    "bodies/9900/4096",
    "requests/9900/60000",
    "requests/9900/3000",
    "sent/9900",
    "pollables/4900/1",
    "one-pollable/100000",
    "random/100/67108864",
    "random/1000/100000",
    "error-text/0/1000000",
    "grow",
];

#[tokio::test]
async fn a_request_takes_the_host_at_most_twice_its_max_memory_and_a_mebibyte() {
    let mut host = Host::start("max_memory = \"2MiB\"").await;
    let before = host.status("VmRSS");
    for attack in ATTACKS {
        let peak = host.peak(attack, 1).await;
        assert!(peak <= 5 * MIB, "{attack}: {} KiB", peak >> 10);
        assert_eq!(host.0.get("/hello").await, HttpResponse::ok("hello\n"));
    }
    let after = host.status("VmRSS");
    assert!(after <= before + 16 * MIB, "{} KiB, and {} KiB afterwards", before >> 10, after >> 10);
}

#[tokio::test]
async fn requests_at_once_take_at_most_that_much_each() {
    let mut host = Host::start("max_memory = \"2MiB\"").await;
    for attack in ATTACKS {
        let peak = host.peak(attack, 4).await;
        assert!(peak <= 4 * 5 * MIB, "{attack}: {} KiB", peak >> 10);
    }
}

#[tokio::test]
async fn what_exceeds_the_share_of_a_plugin_stops_it_and_names_max_memory() {
    let host = Host::start("max_memory = \"2MiB\"").await;
    for attack in ["fields/9900/3000", "bodies/9900/4096", "requests/9900/3000", "clones/9900", "pollables/4900/1"] {
        assert_eq!(host.attack(attack).await.status, 500, "{attack}");
    }
    let finished = host.0.terminate().await;
    let named = finished.stderr.matches("`max_memory` of `[sandbox]`").count();
    assert_eq!(named, 5, "{}", finished.stderr);
    // All but the pollables, of which there are too many.
    let weighed = finished.stderr.matches("its open files and HTTP messages take over 512.0 KiB").count();
    assert_eq!(weighed, 4, "{}", finished.stderr);
}

#[tokio::test]
async fn a_call_over_a_bound_traps_and_names_the_bound() {
    let host = Host::start("").await;
    let mut reasons = Vec::new();
    for (attack, reason) in [
        ("one-pollable/1025", "`poll` takes at most 1024 pollables, but got 1025"),
        ("random/1/1048577", "one call returns at most 1048576 random bytes"),
        ("fields/1/20000", "a set of HTTP fields takes at most 16384 bytes"),
        ("list/1/20000", "a set of HTTP fields takes at most 16384 bytes"),
    ] {
        assert_eq!(host.attack(attack).await.status, 500, "{attack}");
        reasons.push(reason);
    }
    let finished = host.0.terminate().await;
    let logged: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(logged.len(), reasons.len(), "{}", finished.stderr);
    for (line, reason) in logged.iter().zip(reasons) {
        assert!(line.contains(reason), "`{reason}` is not in: {line}");
    }
}

#[tokio::test]
async fn what_is_within_the_bounds_works_as_before() {
    let host = Host::start("").await;
    assert_eq!(host.attack("one-pollable/1024").await, HttpResponse::ok("1024\n"));
    assert_eq!(host.attack("random/3/1048576").await, HttpResponse::ok("3\n"));
    assert_eq!(host.attack("fields/100/16000").await, HttpResponse::ok("100\n"));
    assert_eq!(host.attack("bodies/50/65536").await, HttpResponse::ok("50\n"));
    assert_eq!(host.attack("pollables/1000/3").await, HttpResponse::ok("3\n"));
}

#[tokio::test]
async fn a_plugin_opens_no_socket_of_the_host() {
    let mut host = Host::start("").await;
    let open = host.proc("fd");
    let before = fs::read_dir(&open).unwrap().count();
    assert_eq!(host.attack("sockets/1000").await, HttpResponse::ok("0\n"));
    assert!(fs::read_dir(&open).unwrap().count() <= before + 8);
}

#[tokio::test]
async fn the_reply_of_a_server_is_held_within_max_memory() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut client = server.client();
    for n in 0..40 {
        let () = redis::cmd("SET").arg(format!("cache:k{n}")).arg(vec![b'v'; 200_000]).query(&mut client).unwrap();
    }
    let mut host = Host::start_with("max_memory = \"2MiB\"", &server.cache("c")).await;
    // One value fits, and the sum of many does not.
    assert_eq!(host.attack("get-many/1").await, HttpResponse::ok("1\n"));
    // The rest of the bound is for the plugin's own memory and for the other shares.
    for at_once in [1, 4] {
        let peak = host.peak("get-many/40", at_once).await;
        assert!(peak <= at_once * 3 * MIB, "{} KiB", peak >> 10);
    }
    assert_eq!(host.attack("get-many/40").await, HttpResponse::ok("0\n"));
}

/// Starts a service of WASI 0.3 at `/hoard`, whose key `k` holds a MiB, with all defaults.
async fn start_concurrent(server: &Server) -> Host {
    let mut client = server.client();
    let () = redis::cmd("SET").arg("cache:k").arg(vec![b'v'; 1 << 20]).query(&mut client).unwrap();
    let file = guest("concurrent").display().to_string();
    let cache = server.cache("c") + "timeout = \"30s\"\n";
    let config = format!("[plugins.concurrent]\npath = {file:?}\nroute = \"/\"\n{cache}");
    let host = Host(ServeProcess::start_with(Larder::serve().config(&config)));
    assert_eq!(host.0.get("/hello").await, HttpResponse::ok("hello of 0.3\n"));
    host
}

/// A server answers all calls that are sent while the plugin computes: 400 MiB for all that are begun. When the plugin cancels
/// them, its own memory gets those that are answered meanwhile, which may be more than it can have.
#[tokio::test]
async fn the_answers_that_a_plugin_does_not_take_are_held_within_max_memory() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for attack in ["get-many/50", "get/400", "get-or-set/400", "get-or-refresh/400"] {
        let mut host = start_concurrent(&server).await;
        let before = host.reset_peak();
        let status = host.0.get(&format!("/hoard?{attack}/1500")).await.status;
        let peak = host.status("VmHWM").saturating_sub(before);
        println!("{attack}: {status}, {} KiB", peak >> 10);
        assert!([200, 500].contains(&status), "{attack}: {status}");
        assert!(peak <= 257 * MIB, "{attack}: {} KiB", peak >> 10);
        assert_eq!(host.0.get("/hello").await.status, 200);
    }
}

#[tokio::test]
async fn the_values_that_a_plugin_fills_at_the_same_time_are_held_within_max_memory() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let host = start_concurrent(&server).await;
    let refused = "16 stored, too many bytes in concurrent calls: the limit is 16777216";
    assert_eq!(host.0.get("/hoard?fill/40").await, HttpResponse::ok(refused));
}

/// The shares of all kinds add up to no more than the bound of the sum, in a host that has answered two requests before.
#[tokio::test]
async fn one_request_that_uses_every_share_at_once_takes_at_most_twice_its_max_memory_and_a_mebibyte() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    // The share of `max_memory` is less than the largest value, and a busy machine is no outage.
    let cache = server.cache("c") + "max_value_bytes = \"16MiB\"\ntimeout = \"30s\"\n";
    for (mib, responses) in [(4, 10), (16, 18), (64, 60)] {
        for (attack, is_answered) in [("all", true), ("all-too-large", true), ("all-and-more", false)] {
            let mut host = Host::start_with(&format!("max_memory = \"{mib}MiB\""), &cache).await;
            let attack = format!("{attack}/{responses}/{mib}");
            let peak = host.peak(&attack, 1).await;
            assert!(peak <= (2 * mib + 1) * MIB, "{attack}: {} KiB", peak >> 10);
            if is_answered {
                assert_eq!(host.attack(&attack).await, HttpResponse::ok("1\n"));
            }
        }
    }
    let mut host = Host::start_with("max_memory = \"16MiB\"", &cache).await;
    for attack in ["all/18/16", "all-too-large/18/16"] {
        let peak = host.peak(attack, 4).await;
        assert!(peak <= 4 * 33 * MIB, "{attack}: {} KiB", peak >> 10);
        assert_eq!(host.attack(attack).await, HttpResponse::ok("1\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_250_large_requests_is_given_back() {
    let mut host = Host::start("max_memory = \"4MiB\"").await;
    let before = host.status("VmRSS");
    let client = Client::connect_http2(host.0.address()).await;
    let mut held = JoinSet::new();
    for _ in 0..250 {
        let client = client.clone();
        held.spawn(async move { client.get("/hoard/do/hold/1000/2000000").await.unwrap() });
    }
    while let Some(answer) = held.join_next().await {
        assert_eq!(answer.unwrap(), HttpResponse::ok("1\n"));
    }
    let peak = host.status("VmHWM");
    assert!(peak >= before + 100 * MIB, "the requests did not run at once: {} KiB", peak >> 10);
    // The last instances are dropped after their responses.
    let began = Instant::now();
    while host.status("VmRSS") > before + 64 * MIB && began.elapsed() < TEST_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = host.status("VmRSS");
    println!("{} KiB, {} KiB at the peak, {} KiB afterwards", before >> 10, peak >> 10, after >> 10);
    assert!(after <= before + 64 * MIB, "{} KiB, and {} KiB afterwards", before >> 10, after >> 10);
}

/// Other plugins are asked while long calls are made without end.
async fn others_are_answered_during(attack: &str) {
    let host = Host::start("timeout = \"3s\"").await;
    let mut attacks = JoinSet::new();
    for _ in 0..2 {
        let client = Client::connect(host.0.address()).await;
        let path = format!("/hoard/do/{attack}");
        attacks.spawn(async move { client.get(&path).await.map(|answer| answer.status) });
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(host.0.get("/hello").await, HttpResponse::ok("hello\n"));
        times.push(began.elapsed());
    }
    times.sort();
    println!("{attack}: {:?} at the median, {:?} at most", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(500), "{attack}: {times:?}");
    assert!(times[19] < TEST_TIMEOUT / 2);
}

#[tokio::test]
async fn other_plugins_are_answered_while_a_plugin_asks_for_random_bytes_without_end() {
    others_are_answered_during("random/1000000/1048576").await;
}

#[tokio::test]
async fn other_plugins_are_answered_while_a_plugin_polls_as_many_pollables_as_it_may() {
    others_are_answered_during("pollables/1024/1000000").await;
}
