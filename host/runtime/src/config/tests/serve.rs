//! `[serve]` and routes.

use super::{parse, refusal};
use crate::config::{Config, Route, Serve};
use std::path::Path;
use std::time::Duration;

#[test]
fn every_key_of_the_http_server_is_read() {
    let config = parse(
        "[serve]\naddr = \"[::1]:80\"\nmetrics_addr = \"127.0.0.1:9\"\nmax_concurrent_requests = 7\nmax_connections = 9\n\
         max_request_body = \"1KiB\"\nshutdown_timeout = \"0s\"\nmax_queued_output = \"64KiB\"\n",
    );
    let expected = Serve {
        addr: "[::1]:80".parse().unwrap(),
        metrics_addr: Some("127.0.0.1:9".parse().unwrap()),
        max_concurrent_requests: 7,
        max_connections: Some(9),
        max_request_body: 1024,
        shutdown_timeout: Duration::ZERO,
        max_queued_output: 65_536,
    };
    assert_eq!(config.serve, expected);
    assert_eq!(parse("").serve, Serve::default());
}

#[test]
fn an_invalid_key_of_the_http_server_is_refused() {
    for (line, rule) in [
        ("addr = \"localhost\"", "`serve.addr`: must be an IP address and a port"),
        ("metrics_addr = \"90900\"", "`serve.metrics_addr`: must be an IP address and a port"),
        ("addr = 8080", "`serve.addr`: "),
        ("max_concurrent_requests = 0", "`serve.max_concurrent_requests`: must be from 1 to 65536"),
        ("max_connections = 0", "`serve.max_connections`: must be from 1 to 65536"),
        ("max_request_body = -1", "`serve.max_request_body`: "),
        (
            "max_queued_output = 16383",
            "`serve.max_queued_output`: must be at least 16KiB: a line of the log may have 8 KiB",
        ),
        ("max_queued_output = \"1B\"", "`serve.max_queued_output`: must be at least 16KiB"),
        ("port = 80", "unknown key `port`"),
    ] {
        let refused = refusal(&format!("[serve]\n{line}\n"));
        assert!(refused.starts_with("larder.toml:2:") && refused.contains(rule), "{line}: {refused}");
    }
}

#[test]
fn a_plugin_with_a_path_and_a_route_is_served() {
    let text = "[plugins.shop]\npath = \"a/shop.wasm\"\nroute = \"/shop\"\n[plugins.other]\n";
    let config = Config::parse(text, "larder.toml", Path::new("/etc/larder"), &|_| None).unwrap();
    let path = Path::new("/etc/larder/a/shop.wasm").to_owned();
    assert_eq!(config.routes, [Route { plugin: "shop".to_owned(), path, route: "/shop".to_owned() }]);
    assert_eq!(config.plugins.len(), 2);
}

#[test]
fn an_invalid_route_is_refused() {
    let plugin = |keys: &str| refusal(&format!("[plugins.shop]\n{keys}\n"));
    assert!(plugin("path = \"a.wasm\"").contains("`plugins.shop.path`: needs a `route`"));
    assert!(plugin("route = \"/\"").contains("`plugins.shop.route`: needs a `path`"));
    for route in ["", "shop", "/shop/", "//", "/a?b", "/a#b", "/a b", "/é", "/a\\u0007"] {
        let refused = plugin(&format!("path = \"a.wasm\"\nroute = \"{route}\""));
        assert!(refused.contains("`plugins.shop.route`: must be `/`, or a path such as `/shop`"), "{route}: {refused}");
    }
    let same = "path = \"a.wasm\"\nroute = \"/a\"\n[plugins.b]\npath = \"a.wasm\"\nroute = \"/a\"";
    assert!(plugin(same).contains("`plugins.shop.route`: is already used by `plugins.b`"), "{}", plugin(same));
}
