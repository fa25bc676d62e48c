//! `outgoing_hosts`: which entries are valid, and which requests they allow.

use super::{parse, refusal};
use crate::config::{Destination, OutgoingHost};

/// The destination of a request with this URI.
fn destination(uri: &str) -> Option<Destination> {
    let (scheme, authority) = uri.split_once("://").unwrap();
    Destination::new(authority, if scheme == "https" { 443 } else { 80 })
}

fn covers(entry: &str, uri: &str) -> bool {
    destination(uri).is_some_and(|destination| OutgoingHost::try_from(entry).unwrap().covers(&destination))
}

#[test]
fn an_entry_covers_only_the_hosts_and_ports_that_it_names() {
    for (entry, reached, denied) in [
        (
            "api.example.com",
            &["http://api.example.com", "https://api.example.com", "http://api.example.com:80"][..],
            &[
                "http://example.com",
                "http://a.api.example.com",
                "http://xapi.example.com",
                "http://api.example.com.evil.test",
                "http://api.example.com:8080",
                "http://api.example.com:443",
                "https://api.example.com:80",
            ][..],
        ),
        (
            "api.example.com:8080",
            &["http://api.example.com:8080", "https://api.example.com:8080"],
            &["http://api.example.com", "https://api.example.com"],
        ),
        (
            "*.example.org",
            &["http://a.example.org", "http://a.b.example.org", "https://A.EXAMPLE.ORG."],
            &["http://example.org", "http://aexample.org", "http://a.example.org.test", "http://a.example.org:81"],
        ),
        ("*.example.org:81", &["http://a.example.org:81"], &["http://a.example.org", "http://example.org:81"]),
        ("127.0.0.1:8081", &["http://127.0.0.1:8081"], &["http://127.0.0.1", "http://localhost:8081"]),
        ("127.0.0.1", &["http://127.0.0.1"], &["http://127.0.0.2", "http://[::ffff:127.0.0.1]"]),
        ("[::1]:8080", &["http://[::1]:8080", "http://[0:0::1]:8080"], &["http://[::1]", "http://[::2]:8080"]),
        ("[::1]", &["http://[::1]", "https://[::1]:443"], &["http://[::1]:443"]),
        ("localhost", &["http://localhost"], &["http://127.0.0.1", "http://[::1]"]),
        ("my_service", &["http://my_service"], &["http://my-service"]),
        ("*", &["http://a.test", "https://127.0.0.1", "http://[::1]"], &["http://a.test:8080"]),
        ("*:8080", &["http://a.test:8080", "https://127.0.0.1:8080"], &["http://a.test"]),
    ] {
        for uri in reached {
            assert!(covers(entry, uri), "`{entry}` does not cover {uri}");
        }
        for uri in denied {
            assert!(!covers(entry, uri), "`{entry}` covers {uri}");
        }
    }
}

#[test]
fn host_names_are_compared_without_case_and_without_trailing_dot() {
    for entry in ["api.example.com", "API.Example.COM", "api.example.com.", "Api.Example.Com.:80"] {
        for uri in [
            "http://api.example.com",
            "http://API.EXAMPLE.com",
            "http://api.example.com.",
            "http://Api.example.com.:80",
        ] {
            assert!(covers(entry, uri), "`{entry}` does not cover {uri}");
        }
    }
    let destination = destination("https://API.example.com.:8443").unwrap();
    assert_eq!((destination.host().as_str(), destination.port()), ("api.example.com", 8443));
    assert_eq!(destination.to_string(), "api.example.com:8443");
}

/// Some URI parsers take each of these for another destination than its beginning suggests.
#[test]
fn an_authority_other_than_a_host_and_a_port_is_refused() {
    for authority in [
        "",
        "api.example.com@evil.test",
        "user:password@api.example.com",
        "@api.example.com",
        "api.example.com:",
        "api.example.com:0",
        "api.example.com:+80",
        "api.example.com:65536",
        "api.example.com:80:80",
        "api.example.com..",
        ".api.example.com",
        "api..example.com",
        "api.example.com%00.evil.test",
        "::1",
        "[::1",
        "[::1]x",
        "[::1%25eth0]",
        "[127.0.0.1]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.0x1",
        "0177.0.0.1",
        "127.0.0.1.",
        "b\u{fc}cher.example",
        "*",
        "*.example.com",
    ] {
        assert_eq!(Destination::new(authority, 80), None, "`{authority}`");
    }
}

#[test]
fn an_ipv6_address_has_brackets_in_the_header_and_none_as_a_host() {
    let destination = destination("http://[::1]:8080").unwrap();
    assert_eq!((destination.host().as_str(), destination.to_string().as_str()), ("::1", "[::1]:8080"));
    assert_eq!(Destination::new("[::1]:80", 80).unwrap().to_string(), "[::1]");
}

#[test]
fn the_grant_allows_the_hosts_of_its_list() {
    let config = parse("[plugins.p]\noutgoing_hosts = [\"api.example.com\", \"127.0.0.1:8081\", \"*.example.org\"]\n");
    let may_reach = |uri| config.grant("p").may_reach(&destination(uri).unwrap());
    assert!(
        may_reach("https://api.example.com") && may_reach("http://127.0.0.1:8081") && may_reach("http://a.example.org")
    );
    assert!(!may_reach("http://127.0.0.1"));
    assert!(!config.grant("another").may_reach(&destination("https://api.example.com").unwrap()));
    assert_eq!(parse("[plugins.p]\noutgoing_hosts = []\n"), parse("[plugins.p]\n"));
}

#[test]
fn an_invalid_entry_is_refused_and_not_shown() {
    for entry in [
        "",
        "http://s3cret.example.com",
        "s3cret.example.com/path",
        "user:s3cret@example.com",
        "s3cret@example.com",
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "example.com:http",
        "example.com:*",
        "::1",
        "[::1",
        "[example.com]",
        "exa mple.com",
        "b\u{fc}cher.example",
        "*.",
        "*.*.example.com",
        "*.127.0.0.1",
        "**",
        "a*.example.com",
        "a.*.example.com",
        "127.1",
        "256.0.0.1",
        ".example.com",
    ] {
        let refused = refusal(&format!("[plugins.p]\noutgoing_hosts = [\"example.com\", \"{entry}\"]\n"));
        let rule =
            "larder.toml:2:18: `plugins.p.outgoing_hosts[1]`: must be a host name, an IP address (IPv6 in brackets)";
        assert!(refused.starts_with(rule) && !refused.contains("s3cret"), "`{entry}`: {refused}");
    }
    assert!(OutgoingHost::try_from(format!("{}.test", "a".repeat(64)).as_str()).is_err());
    assert!(OutgoingHost::try_from("a.".repeat(128).as_str()).is_err());
    assert!(refusal("[plugins.p]\noutgoing_hosts = \"example.com\"\n").contains("`plugins.p.outgoing_hosts`: "));
}
