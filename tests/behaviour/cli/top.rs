//! `larder top`: its table, its messages for servers that are not hosts, and the terminal after it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use larder_tests::{Kind, Larder, ServeProcess, Server, wait_for};

fn once(address: SocketAddr) -> Larder {
    Larder::new(["top", "--once", "--interval", "100ms"]).arg(address.to_string())
}

/// The cells of the table of caches, as `cells_of` has them.
fn cells(tables: &str) -> BTreeMap<(&str, &str), &str> {
    cells_of(tables.split("\n\n").next().unwrap())
}

/// The cells of a table without spaces in them, by the first one of their line and their heading.
fn cells_of(table: &str) -> BTreeMap<(&str, &str), &str> {
    let mut lines = table.lines();
    let headings: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    let rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.flat_map(|row| {
        assert_eq!(row.len(), headings.len(), "{table}");
        headings.iter().zip(row.clone()).map(move |(heading, cell)| ((row[0], *heading), cell)).collect::<Vec<_>>()
    })
    .collect()
}

mod table {
    use super::*;

    #[tokio::test]
    async fn the_table_shows_the_calls_and_the_size_of_a_cache() {
        let config = "default = \"pages\"\n[caches.pages]\ntype = \"ram\"\nmax_bytes = \"2MiB\"\n\
                      [caches.idle]\ntype = \"ram\"\n";
        let serving = ServeProcess::start_with_metrics(config);
        for path in ["/visit/a", "/visit/a", "/visit/b", "/compute/c", "/compute/c"] {
            assert_eq!(serving.get(path).await.status, 200);
        }
        let run = once(serving.metrics_address()).succeed();
        assert_eq!(run.stderr, "");
        let cells = cells(&run.stdout);
        for (heading, expected) in [
            ("TYPE", "ram"),
            ("SERVER", "-"),
            ("CALLS/S", "0.0"),
            ("HIT RATE", "-"),
            ("P99", "-"),
            ("ERRORS/S", "0.0"),
            ("HITS", "2"),
            ("MISSES", "3"),
            ("HELD", "0"),
            ("COMPUTED", "1"),
            ("WAITED", "0"),
            ("STALE", "0"),
            ("REFRESHED", "0"),
            ("FAILED REFRESHES", "0"),
            ("MAX BYTES", "2.0MiB"),
            ("ENTRIES", "3"),
            ("NEAR HIT RATE", "-"),
            ("NEAR BYTES", "-"),
            ("RECONNECTS", "-"),
        ] {
            assert_eq!(cells[&("pages", heading)], expected, "{heading} in {}", run.stdout);
        }
        assert_eq!((cells[&("idle", "HITS")], cells[&("idle", "MAX BYTES")]), ("0", "64.0MiB"));
    }

    /// Requests go on until a table shows a time: in a RAM cache, only some calls are timed.
    #[tokio::test]
    async fn rates_and_times_are_of_the_interval() {
        let serving = ServeProcess::start_with_metrics("");
        let metrics = serving.metrics_address();
        let run = tokio::task::spawn_blocking(move || {
            wait_for("a time", || {
                Some(once(metrics).succeed().stdout).filter(|table| cells(table)[&("ram", "P50")] != "-")
            })
        });
        while !run.is_finished() {
            serving.get("/visit/a").await;
        }
        let table = run.await.unwrap();
        let cells = cells(&table);
        let number = |heading| cells[&("ram", heading)].trim_end_matches('%').parse::<f64>().unwrap();
        assert!(number("CALLS/S") > 0.0, "{table}");
        assert!((0.0..=100.0).contains(&number("HIT RATE")), "{table}");
        for heading in ["P50", "P99"] {
            assert!(cells[&("ram", heading)].ends_with('s'), "{table}");
        }
    }

    #[tokio::test]
    async fn a_server_is_up_or_down() {
        let Some(mut server) = Server::start(Kind::Valkey) else { return };
        let serving = ServeProcess::start_with_metrics(&server.cache("c"));
        let table = once(serving.metrics_address()).succeed().stdout;
        let up = cells(&table);
        assert_eq!([up[&("c", "TYPE")], up[&("c", "SERVER")], up[&("c", "RECONNECTS")]], ["valkey", "up", "0"]);
        server.kill();
        // The host learns of it by a call at the latest.
        serving.get("/visit/a").await;
        let table = once(serving.metrics_address()).succeed().stdout;
        let down = cells(&table);
        assert_eq!([down[&("c", "SERVER")], down[&("c", "BYTES")]], ["down", "-"]);
    }

    #[tokio::test]
    async fn a_near_tier_has_a_hit_rate_and_a_size() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        let near = "near = { max_staleness = \"60s\" }\ntimeout = \"20s\"\n";
        let serving = ServeProcess::start_with_metrics(&format!("{}{near}", server.cache("c")));
        let metrics = serving.metrics_address();
        let run = tokio::task::spawn_blocking(move || {
            wait_for("a hit", || {
                let table = once(metrics).succeed().stdout;
                let near = ["NEAR HIT RATE", "NEAR BYTES"].map(|heading| cells(&table)[&("c", heading)].to_owned());
                (!near.iter().any(|cell| ["-", "0.0%", "0B"].contains(&cell.as_str()))).then_some(near)
            })
        });
        while !run.is_finished() {
            serving.get("/compute/a").await;
        }
        let [rate, bytes] = run.await.unwrap();
        assert!(rate.ends_with('%') && bytes.ends_with('B'), "{rate} {bytes}");
    }

    #[tokio::test]
    async fn plugins_and_the_host_have_tables_of_their_own() {
        let serving = ServeProcess::start_with_metrics("");
        assert_eq!(serving.get("/visit/a").await.status, 200);
        let metrics = serving.metrics_address();
        let run = tokio::task::spawn_blocking(move || {
            wait_for("a request in the interval", || {
                let tables = once(metrics).succeed().stdout;
                let [_, plugins, _] = tables.split("\n\n").collect::<Vec<_>>()[..] else { panic!("{tables}") };
                (cells_of(plugins)[&("http", "REQUESTS/S")] != "0.0").then_some(tables)
            })
        });
        while !run.is_finished() {
            serving.get("/visit/a").await;
        }
        let tables = run.await.unwrap();
        let [caches, plugins, host] = tables.split("\n\n").collect::<Vec<_>>()[..] else { panic!("{tables}") };
        assert_eq!(cells_of(caches)[&("ram", "TYPE")], "ram");
        let plugins = cells_of(plugins);
        assert_eq!([plugins[&("http", "5XX/S")], plugins[&("http", "IDLE")]], ["0.0", "-"]);
        assert!(plugins[&("http", "P99")].ends_with('s'), "{tables}");
        let (host, url) = (cells_of(host), format!("http://{metrics}/metrics"));
        assert_ne!(host[&(url.as_str(), "2XX/S")], "0.0");
        assert_eq!(host[&(url.as_str(), "REFUSED/S")], "0.0");
        host[&(url.as_str(), "RUNNING")].parse::<u32>().unwrap();
    }

    #[tokio::test]
    async fn the_address_may_come_from_the_configuration() {
        let serving = ServeProcess::start_with_metrics("");
        let config = format!("[serve]\nmetrics_addr = \"{}\"\n", serving.metrics_address());
        let table = Larder::new(["top", "--once", "--interval", "100ms"]).config(&config).succeed().stdout;
        assert!(cells(&table).contains_key(&("ram", "HITS")), "{table}");
    }

    #[tokio::test]
    async fn with_an_address_no_configuration_is_needed() {
        let serving = ServeProcess::start_with_metrics("");
        once(serving.metrics_address()).config("this is no configuration").succeed();
    }
}

mod refusals {
    use super::*;

    #[test]
    fn without_an_address_the_message_names_where_to_set_one() {
        let run = Larder::new(["top", "--once"]).fail(2);
        assert!(run.error_line().contains("or set `metrics_addr` of `[serve]`"), "{run:#?}");
        let run = Larder::new(["top", "--once"]).config("[serve]\nmetrics_addr = \"127.0.0.1:0\"\n").fail(2);
        assert!(run.error_line().contains("pass the address that `larder serve` printed"), "{run:#?}");
    }

    #[test]
    fn an_invalid_option_is_a_usage_error() {
        for arguments in [
            &["top", "localhost"][..],
            &["top", "https://localhost:9092"],
            &["top", "--interval", "99ms", "localhost:9092"],
            &["top", "--interval", "unlimited", "localhost:9092"],
            &["top", "--interval", "often", "localhost:9092"],
        ] {
            Larder::new(arguments).fail(2);
        }
    }

    #[tokio::test]
    async fn a_screen_needs_a_terminal() {
        let serving = ServeProcess::start_with_metrics("");
        let run = Larder::new(["top".to_owned(), serving.metrics_address().to_string()]).fail(1);
        assert!(run.error_line().contains("`larder top --once`"), "{run:#?}");
    }

    #[test]
    fn an_unreachable_host_is_a_failure() {
        let run = Larder::new(["top", "--once", "127.0.0.1:1"]).fail(1);
        assert!(run.error_line().starts_with("larder: cannot reach http://127.0.0.1:1/metrics: "), "{run:#?}");
    }

    #[tokio::test]
    async fn the_port_for_requests_does_not_serve_metrics() {
        let serving = ServeProcess::start_with_metrics("");
        let run = once(serving.address()).fail(1);
        assert!(run.error_line().ends_with("/metrics responded with 404 Not Found"), "{run:#?}");
    }

    /// Runs `top` against a port that answers each connection with this text, repeated `times` times.
    fn answered_with(answer: &'static [u8], times: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _asked = stream.read(&mut [0; 1024]);
                // Who has heard enough hangs up.
                let _heard = (0..times).try_for_each(|_| stream.write_all(answer));
            }
        });
        once(address).fail(1).error_line().to_owned()
    }

    #[test]
    fn any_other_server_is_a_failure_of_one_line() {
        for (answer, expected) in [
            (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "does not respond as a metrics port: "),
            (b"", "does not respond as a metrics port: "),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html>\x1b[J",
                "line 1 of the response is not in the text format",
            ),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nother 1\n\n", "has no metrics of a `larder serve`"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xff", "does not respond as a metrics port: "),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nlarder", "does not respond as a metrics port: "),
            (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "responded with 302 Found"),
        ] {
            let complaint = answered_with(answer, 1);
            assert!(complaint.contains(expected), "{complaint}");
        }
    }

    #[test]
    fn an_endless_response_is_not_read() {
        const PIECE: &[u8] = &[b'\n'; 1 << 20];
        let answer: &[u8] = Box::leak([b"HTTP/1.1 200 OK\r\n\r\n", PIECE].concat().into_boxed_slice());
        let complaint = answered_with(answer, 1000);
        assert!(complaint.ends_with("length limit exceeded"), "{complaint}");
    }

    #[test]
    fn a_host_that_never_answers_is_not_waited_for() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let run = once(silent.local_addr().unwrap()).fail(1);
        assert!(run.error_line().ends_with("/metrics did not respond within 5s"), "{run:#?}");
    }
}

#[cfg(target_os = "linux")]
mod screen {
    use larder_tests::{Relay, Terminal};

    use super::*;

    /// What is written when a screen is opened, and when the terminal is given back.
    const OPENED: &str = "\x1b[?1049h";
    const CLOSED: &str = "\x1b[?1049l";

    fn assert_restored(terminal: &Terminal, status: u8) {
        // The last word of `stty -a`.
        let all = terminal.wait_for_text("extproc");
        let (screen, after) = all.split_once(CLOSED).unwrap_or_else(|| panic!("the screen is still there: {all}"));
        assert!(screen.contains(OPENED), "{all}");
        assert!(after.contains(&format!("status {status}\r\n")), "{after}");
        for mode in ["icanon", "isig", "echo"] {
            assert!(after.split_whitespace().any(|word| word == mode), "not {mode} in {after}");
        }
    }

    #[tokio::test]
    async fn a_key_or_a_signal_ends_it_and_restores_the_terminal() {
        let serving = ServeProcess::start_with_metrics("[caches.pages]\ntype = \"ram\"\n");
        for key in ["q", "\x1b", "\x03"] {
            let mut terminal = Terminal::run(&format!("top {}", serving.metrics_address()));
            terminal.wait_for_text("pages");
            terminal.press_keys(key);
            assert_restored(&terminal, 0);
        }
        for signal in ["-TERM", "-INT", "-HUP"] {
            let terminal = Terminal::run(&format!("top {}", serving.metrics_address()));
            terminal.wait_for_text("pages");
            terminal.signal(signal);
            assert_restored(&terminal, 0);
        }
    }

    #[tokio::test]
    async fn a_host_that_stops_is_waited_for() {
        let mut first = ServeProcess::start_with_metrics("[caches.early]\ntype = \"ram\"\n");
        let relay = Relay::to(first.metrics_address().port());
        let mut terminal = Terminal::run(&format!("top --interval 100ms 127.0.0.1:{}", relay.port()));
        terminal.wait_for_text("early");
        first.process().kill();
        terminal.wait_for_text("retrying");
        let second = ServeProcess::start_with_metrics("[caches.later]\ntype = \"ram\"\n");
        relay.set_target(second.metrics_address().port());
        terminal.wait_for_text("later");
        terminal.press_keys("q");
        assert_restored(&terminal, 0);
    }
}
