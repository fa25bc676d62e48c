//! Invalid configurations, and the position and the rule that the error names.

use super::*;

#[test]
fn a_syntax_error_has_a_position() {
    assert!(refusal("[caches.c\ntype = 1").starts_with("larder.toml:1:10: "), "{}", refusal("[caches.c\ntype = 1"));
}

#[test]
fn an_unknown_key_is_reported_with_its_position() {
    let error = server_refusal("prot = 1");
    assert!(
        error.starts_with("larder.toml:3:1: `caches.c.prot`: unknown key `prot`, expected one of `url`, `cluster`"),
        "{error}"
    );
    for (written, meant) in [
        (server_refusal("prot = 1"), "port"),
        (server_refusal("near = { max_byte = 1 }"), "max_bytes"),
        (server_refusal("on_outage = \"eror\""), "error"),
        (refusal("[sandbox]\nmax_memmory = 1"), "max_memory"),
        (refusal("[plugins.p]\nnamespaces = \"n\""), "namespace"),
        (refusal("[plugin.p]\n"), "plugins"),
        (refusal("[caches.c]\ntype = \"valky\""), "valkey"),
        (refusal("default = \"rma\""), "ram"),
        (refusal("[plugins.p]\ncaches = [\"rum\"]"), "ram"),
    ] {
        assert!(written.ends_with(&format!("; did you mean `{meant}`?")), "{written}");
    }
    assert!(refusal("[sandbox]\nelephants = 1").ends_with('`'), "no key is near");
    assert!(ram_refusal("host = \"x\"").contains("unknown key `host`"));
    assert!(refusal("defualt = \"x\"").starts_with("larder.toml:1:1: unknown key `defualt`"));
    assert!(refusal("[sandbox]\nmemory = 1").contains("`sandbox.memory`: unknown key `memory`"));
    assert!(refusal("[plugins.p]\ncache = []").contains("`plugins.p.cache`: unknown key `cache`"));
}

#[test]
fn a_wrong_type_is_reported_with_its_key() {
    let quoted = "larder.toml:3:8: `caches.c.port`: must be a number without quotes";
    assert_eq!(server_refusal("port = \"17379\""), quoted);
    assert!(server_refusal("db = \"1\"").ends_with("`caches.c.db`: must be a number without quotes"));
    assert!(server_refusal("port = 1.5").ends_with("`caches.c.port`: must be a whole number, but is a fraction"));
    assert!(server_refusal("tls = \"yes\"").ends_with("`caches.c.tls`: must be `true` or `false` without quotes"));
    assert!(server_refusal("host = 1").ends_with("`caches.c.host`: must be a string in quotes, but is an integer"));
    assert!(server_refusal("near = 1").ends_with("`caches.c.near`: must be a table, but is an integer"));
    let count = refusal("[sandbox]\nmax_handles = \"9\"");
    assert!(count.ends_with("`sandbox.max_handles`: must be a number without quotes"), "{count}");
    assert!(refusal("caches = 1").contains("`caches`: must be a table"));
    assert!(refusal("[caches]\nc = 1").contains("`caches.c`: must be a table"));
    assert!(refusal("default = 1").contains("`default`: must be a string"));
    assert!(refusal("[caches.c]\ntype = 1").contains("`caches.c.type`: must be a string"));
    assert!(refusal("[caches.c]").contains("`caches.c.type` is missing"));
    assert!(refusal("[caches.c]\ntype = \"memcached\"").contains("unknown type `memcached`, expected one of"));
}

#[test]
fn two_caches_need_a_default() {
    let two = "[caches.a]\ntype = \"ram\"\n[caches.b]\ntype = \"ram\"\n";
    let missing = "larder.toml:1:1: `default` is missing: it must name one of `a`, `b`; begin the file with, for example, \
                   `default = \"a\"`";
    assert_eq!(refusal(two), missing);
    assert!(refusal(&format!("default = \"c\"\n{two}")).contains("`default`: there is no cache `c`, only `a`, `b`"));
    assert_eq!(parse(&format!("default = \"b\"\n{two}")).default, "b");
}

#[test]
fn a_port_is_1_to_65535() {
    for port in ["70000", "0", "-1"] {
        let error = server_refusal(&format!("port = {port}"));
        assert_eq!(error, format!("larder.toml:3:8: `caches.c.port`: must be from 1 to 65535, but is {port}"));
    }
    assert!(server_refusal("db = -1").contains("must be from 0 to 65535"));
}

#[test]
fn a_duration_is_positive_and_at_most_100_years() {
    for bad in ["-1", "-0.5", "0", "0.0001", "\"0s\"", "\"-5m\"", "\"soon\"", "nan", "inf", "1e300", "true", "\"5M\""] {
        let error = server_refusal(&format!("default_expire = {bad}"));
        assert!(error.starts_with("larder.toml:3:18: `caches.c.default_expire`: "), "{bad}: {error}");
    }
    assert!(server_refusal("timeout = \"1000years\"").contains("must not be longer than 100 years"));
    assert!(server_refusal("timeout = 9223372036854775807").contains("must not be longer than 100 years"));
    assert!(server_refusal("timeout = \"unlimited\"").contains("is not a duration"));
    assert!(server_refusal("max_lease = 0").contains("`caches.c.max_lease`: must be at least a millisecond"));
    assert!(ram_refusal("max_lease = \"unlimited\"").contains("is not a duration"));
    assert!(server_refusal("wait = -1").contains("must not be negative"));
    for lease in ["\"99ms\"", "3601", "\"2h\""] {
        let refusal = server_refusal(&format!("lease = {lease}"));
        assert!(refusal.contains("`caches.c.lease`: must be from 100ms to 1h"), "{refusal}");
    }
}

#[test]
fn each_key_of_reuse_has_a_limit_that_names_it() {
    for (key, value, rule) in [
        ("requests", "0", "must be from 1 to 65536, but is 0"),
        ("requests", "65537", "must be from 1 to 65536, but is 65537"),
        ("concurrent", "0", "must be from 1 to 65536, but is 0"),
        ("concurrent", "65537", "must be from 1 to 65536, but is 65537"),
        ("idle", "\"61m\"", "must be at most 1h, but is 1h 1m"),
        ("idle", "0", "must be at least a millisecond"),
        ("max_age", "\"25h\"", "must be at most 1day, but is 1day 1h"),
    ] {
        let refusal = refusal(&format!("[plugins.p]\nreuse = {{ {key} = {value} }}"));
        let column = 14 + key.len();
        assert_eq!(refusal, format!("larder.toml:2:{column}: `plugins.p.reuse.{key}`: {rule}"));
    }
    let unknown = refusal("[plugins.p]\nreuse = { size = 16 }");
    let expected = "unknown key `size`, expected one of `requests`, `concurrent`, `idle`, `max_age`";
    assert!(unknown.contains(expected), "{unknown}");
}

#[test]
fn connections_are_1_to_64() {
    for bad in [-1, 0, 65, 65_537] {
        let refusal = server_refusal(&format!("connections = {bad}"));
        assert!(refusal.contains("larder.toml:3:15: `caches.c.connections`: must be from 1 to 64"), "{refusal}");
    }
}

#[test]
fn a_size_is_positive_and_at_most_1_tib() {
    for bad in ["-1", "0", "1.5", "\"much\"", "\"-1MiB\"", "false", "\"99999999999999999999GiB\""] {
        let error = ram_refusal(&format!("max_bytes = {bad}"));
        assert!(error.starts_with("larder.toml:3:13: `caches.c.max_bytes`: "), "{bad}: {error}");
    }
    assert!(server_refusal("max_value_bytes = \"1GiB\"").contains("must not be over 512MiB"));
}

#[test]
fn a_ram_cache_must_hold_its_largest_value() {
    let error = ram_refusal("max_bytes = \"1MiB\"\nmax_value_bytes = \"1MiB\"");
    assert!(error.contains("`caches.c.max_bytes`: must be at least"), "{error}");
    let reason = "must be at least 1993 to hold a value of max_value_bytes = 512 with the longest key and the overhead of an \
                  entry, but is 1024";
    assert!(ram_refusal("max_bytes = \"1KiB\"").ends_with(reason), "{}", ram_refusal("max_bytes = \"1KiB\""));
}

#[test]
fn a_share_needs_a_namespace_and_fits_into_its_caches() {
    let refused = |plugins: &str, expected: &str| {
        let caches = "default = \"a\"\n[caches.a]\ntype = \"ram\"\nmax_bytes = \"8MiB\"\n\
                      [caches.b]\ntype = \"ram\"\nmax_bytes = \"4MiB\"\n";
        let error = parse_with(&format!("{caches}{plugins}"), &[]).err().map(|error| error.to_string());
        assert_eq!(error.as_deref().map(|error| &error[..error.len().min(expected.len())]), Some(expected));
    };
    refused("[plugins.p]\nmax_bytes = \"2MiB\"", "larder.toml:9:13: `plugins.p.max_bytes`: needs a `namespace`");
    let small = "[plugins.p]\nnamespace = \"n\"\nmax_bytes = \"1MiB\"";
    refused(small, "larder.toml:10:13: `plugins.p.max_bytes`: must be at least 1166508 to hold a value of");
    let large = "[plugins.p]\nnamespace = \"n\"\nmax_bytes = \"3MiB\"\n";
    let rule = "larder.toml:10:13: `plugins.p.max_bytes`: leaves less than 1166508 of max_bytes = 4194304 of the \
                cache `b` for others: all shares together are 3145728";
    refused(large, rule);
    let first = format!("{large}caches = [\"a\"]\n");
    let another = "[plugins.q]\ncaches = [\"a\"]\nnamespace = \"m\"\nmax_bytes = \"4MiB\"\n";
    refused(&format!("{first}{another}"), "larder.toml:15:13: `plugins.q.max_bytes`: leaves less than");
    let differs = "[plugins.q]\nnamespace = \"n\"\nmax_bytes = \"2MiB\"";
    let rule = "`plugins.q.max_bytes`: must be the same as that of `plugins.p`, which has the same namespace";
    refused(&format!("{first}{differs}"), &format!("larder.toml:14:13: {rule}"));
    refused(&format!("{first}[plugins.q]\nnamespace = \"n\"\n"), &format!("larder.toml:12:1: {rule}"));
}

#[test]
fn plugins_of_one_namespace_use_one_share() {
    let table = |name: &str| format!("[plugins.{name}]\nnamespace = \"n\"\nmax_bytes = \"40MiB\"\n");
    let config = parse(&format!("{}{}", table("p"), table("q")));
    let BackendConfig::Ram { shares, .. } = &config.caches["ram"].backend else { panic!("the cache is not in RAM") };
    assert_eq!(shares.len(), 1);
}

#[test]
fn a_limit_of_the_sandbox_has_a_maximum() {
    for key in ["max_handles", "max_vacancies", "max_log_lines", "max_outgoing_requests", "max_batch"] {
        for bad in ["0", "-1", "65537"] {
            let error = refusal(&format!("[sandbox]\n{key} = {bad}"));
            let column = key.len() + 4;
            let rule = format!("larder.toml:2:{column}: `sandbox.{key}`: must be from 1 to 65536, but is {bad}");
            assert_eq!(error, rule);
        }
    }
    for key in ["max_key_bytes", "max_pattern_bytes"] {
        let error = refusal(&format!("[sandbox]\n{key} = 1025"));
        assert!(error.contains(&format!("`sandbox.{key}`: must be from 1 to 1024 bytes, but is 1025")), "{error}");
    }
    let error = refusal("[plugins.p]\nmax_concurrent_calls = 0");
    assert_eq!(error, "larder.toml:2:24: `plugins.p.max_concurrent_calls`: must be from 1 to 65536, but is 0");
    assert!(refusal("[sandbox]\nmax_batch_bytes = 0").contains("`sandbox.max_batch_bytes`: must not be zero"));
    assert!(refusal("[sandbox]\nmax_output = 0").contains("`sandbox.max_output`: must not be zero"));
    assert!(refusal("[sandbox]\nmax_cpu_time = 0").contains("`sandbox.max_cpu_time`: must be at least"));
}

#[test]
fn an_empty_prefix_is_refused() {
    assert!(server_refusal("prefix = \"\"").starts_with("larder.toml:3:10: `caches.c.prefix`: must not be empty"));
    assert!(server_refusal("prefix = \"\"").contains("`clear-all` would empty the database"));
    assert!(server_refusal("prefix = \"a\\u001fb\"").contains("control characters"));
}

#[test]
fn prefixes_on_one_server_must_not_overlap() {
    let two = |a: &str, b: &str| {
        let text = format!("default = \"a\"\n[caches.a]\ntype = \"valkey\"\n{a}\n[caches.b]\ntype = \"redis\"\n{b}\n");
        parse_with(&text, &[]).map_err(|error| error.to_string())
    };
    let refused = two("prefix = \"app:\"", "prefix = \"app:sessions:\"").unwrap_err();
    assert!(refused.contains("`caches.b.prefix`: overlaps with the prefix of cache `a`"), "{refused}");
    assert!(two("", "").is_err());
    assert!(two("prefix = \"a:\"", "prefix = \"b:\"").is_ok());
    assert!(two("", "db = 1").is_ok());
    assert!(two("", "port = 6380").is_ok());
}

#[test]
fn the_keys_of_the_root_are_checked_first() {
    assert!(refusal("default = \"v\"\n[cache.v]\ntype = \"ram\"").contains("unknown key `cache`"));
}

#[test]
fn a_url_as_host_is_refused_and_not_shown() {
    let refused = server_refusal("host = \"redis://:s3cret@localhost\"");
    assert_eq!(refused, "larder.toml:3:8: `caches.c.host`: must be a name or an address; use the key `url` for a URL");
}

#[test]
fn a_plugin_needs_known_caches_and_a_valid_namespace() {
    let ram = "[caches.ram]\ntype = \"ram\"\n";
    assert!(
        refusal(&format!("{ram}[plugins.p]\ncaches = [\"redis\"]"))
            .contains("larder.toml:4:10: `plugins.p.caches`: there is no cache `redis`")
    );
    assert!(
        refusal(&format!("{ram}[plugins.p]\nnamespace = \"\"")).contains("larder.toml:4:13: `plugins.p.namespace`: ")
    );
    assert!(refusal(&format!("{ram}[plugins.p]\nnamespace = \"a\\u001f\"")).contains("control characters"));
    assert!(refusal(&format!("{ram}[plugins.p]\naccess = \"write-only\"")).contains("`plugins.p.access`: "));
}

#[test]
fn a_near_tier_is_refused_by_the_name_of_its_key() {
    for (near, rule) in [
        ("{ max_staleness = \"99ms\" }", "`caches.c.near`: `max_staleness` must be from 100ms to 60s"),
        ("{ max_staleness = \"61s\" }", "`caches.c.near`: `max_staleness` must be from 100ms to 60s"),
        ("{ max_bytes = \"64KiB\" }", "`caches.c.near`: `max_bytes` must be at least 74242 to hold a value of"),
        ("{ max_value_bytes = \"2MiB\" }", "`max_value_bytes` must not be over that of the cache, which is 1048576"),
        ("{ max_stale = 1 }", "`caches.c.near.max_stale`: unknown key `max_stale`"),
        ("{ max_expire = 0 }", "`caches.c.near.max_expire`"),
        ("true", "`caches.c.near`"),
    ] {
        let error = server_refusal(&format!("near = {near}"));
        assert!(error.starts_with("larder.toml:3:") && error.contains(rule), "{near}: {error}");
    }
    assert!(ram_refusal("near = {}").contains("unknown key `near`"));
}
