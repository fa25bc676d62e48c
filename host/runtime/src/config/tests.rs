//! The defaults, the keys and the environment variables of the configuration.

use std::path::Path;
use std::time::Duration;

use crate::cache::valkey::{Deployment, Endpoint, ServerKind, ServerOptions};
use crate::cache::{Access, Limits, OnOutage};
use crate::config::{BackendConfig, Config, ConfigError, Loading, OutgoingHost, Sandbox};

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment =
        |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
    Config::parse(text, "larder.toml", Path::new(""), &environment)
}

fn parse(text: &str) -> Config {
    parse_with(text, &[]).unwrap()
}

/// The error message of a configuration.
fn refusal(text: &str) -> String {
    parse_with(text, &[]).unwrap_err().to_string()
}

/// The error message for one key of an otherwise valid server cache. The key is on line 3.
fn server_refusal(line: &str) -> String {
    refusal(&format!("[caches.c]\ntype = \"valkey\"\n{line}\n"))
}

fn ram_refusal(line: &str) -> String {
    refusal(&format!("[caches.c]\ntype = \"ram\"\n{line}\n"))
}

fn server<'a>(config: &'a Config, name: &str) -> &'a ServerOptions {
    match &config.caches[name].backend {
        BackendConfig::Server(options) => options,
        _ => panic!("`{name}` is not on a server"),
    }
}

/// `max_key_bytes`, `max_pattern_bytes`, `max_batch` and `max_batch_bytes`.
fn limits([key, pattern, batch, bytes]: [usize; 4]) -> Limits {
    let mut limits = Limits::default();
    (limits.max_key_bytes, limits.max_pattern_bytes) = (key, pattern);
    (limits.max_batch, limits.max_batch_bytes) = (batch, bytes);
    limits
}

/// An empty directory, which the test removes.
fn new_directory() -> std::path::PathBuf {
    static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("larder-config-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

mod deployment;
mod env;
mod hosts;
mod refusals;
mod secrets;
mod serve;

mod defaults {
    use super::*;

    #[test]
    fn an_empty_configuration_is_one_ram_cache() {
        let config = parse("");
        assert_eq!(config, Config::default());
        assert_eq!(config.default, "ram");
        let ram = &config.caches["ram"];
        assert_eq!(ram.backend, BackendConfig::Ram { max_bytes: 64 << 20, shares: Vec::new() });
        assert_eq!(ram.policy.default_expire, Some(Duration::from_secs(300)));
        assert_eq!(ram.policy.max_expire, None);
        assert_eq!(ram.policy.max_value_bytes, 1 << 20);
        assert_eq!(ram.policy.wait, Duration::from_secs(5));
        assert_eq!(ram.policy.max_lease, Duration::from_secs(300));
        let sandbox = Sandbox {
            max_memory: 128 << 20,
            timeout: Duration::from_secs(30),
            max_cpu_time: Duration::from_secs(10),
            max_output: 16 << 20,
            max_dir_bytes: 1 << 30,
            max_handles: 1024,
            max_vacancies: 256,
            max_log_lines: 100,
            max_outgoing_requests: 16,
            limits: limits([1024, 1024, 1024, 8 << 20]),
            loading: Loading {
                max_plugin_bytes: 64 << 20,
                max_compile_memory: None,
                compile_timeout: Duration::from_secs(120),
                max_core_instances: 64,
                max_memories: 8,
                max_tables: 32,
            },
        };
        assert_eq!(config.sandbox, sandbox);
    }

    #[test]
    fn a_ram_table_without_keys_is_the_default_configuration() {
        assert_eq!(parse("[caches.ram]\ntype = \"ram\""), Config::default());
    }

    #[test]
    fn a_valkey_cache_without_keys_uses_localhost_6379_db_0_prefix_cache_300_s() {
        let config = parse("[caches.valkey]\ntype = \"valkey\"");
        let options = server(&config, "valkey");
        assert_eq!(*options, ServerOptions::new(ServerKind::Valkey));
        let localhost = Endpoint { host: "localhost".to_owned(), port: 6379 };
        assert_eq!(options.deployment, Deployment::Server(localhost));
        assert_eq!((options.db, options.prefix.as_str(), options.connections), (0, "cache:", 1));
        assert!(options.username.is_none() && options.password.is_none() && options.tls.is_none());
        assert_eq!(options.connect_timeout, Duration::from_secs(2));
        assert_eq!(options.timeout, Duration::from_millis(500));
        assert_eq!(options.lease, Duration::from_secs(4));
        let policy = &config.caches["valkey"].policy;
        assert_eq!(policy.default_expire, Some(Duration::from_secs(300)));
        assert_eq!(policy.max_value_bytes, 1 << 20);
        assert_eq!(policy.on_outage, OnOutage::Miss);
        assert_eq!(policy.max_lease, Duration::from_secs(300));
        assert_eq!(config.default, "valkey");
    }

    #[test]
    fn redis_has_the_same_keys_and_defaults() {
        let valkey = parse("[caches.c]\ntype = \"valkey\"");
        let redis = parse("[caches.c]\ntype = \"redis\"");
        let mut expected = server(&valkey, "c").clone();
        expected.kind = ServerKind::Redis;
        assert_eq!(*server(&redis, "c"), expected);
        assert_eq!(redis.caches["c"].policy, valkey.caches["c"].policy);
    }

    #[test]
    fn a_small_ram_cache_accepts_values_up_to_half_its_size() {
        let config = parse("[caches.ram]\ntype = \"ram\"\nmax_bytes = \"256KiB\"");
        assert_eq!(config.caches["ram"].policy.max_value_bytes, 128 << 10);
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        default = "pages"

        [caches.pages]
        type = "valkey"
        host = "valkey.example.com"
        port = 6380
        db = 1
        prefix = "app:"
        default_expire = 600
        max_expire = "1h"
        username = "larder"
        password = "secret"
        tls = true
        ca_file = "ca.pem"
        cert_file = "larder.pem"
        key_file = "/run/larder.key"
        connect_timeout = "1s"
        timeout = "250ms"
        connections = 4
        max_value_bytes = "2MiB"
        lease = "3s"
        wait = 1.5
        max_lease = 30
        on_outage = "error"

        [caches.near]
        type = "ram"
        max_bytes = 8388608
        max_value_bytes = "64KiB"
        default_expire = "unlimited"
        max_expire = "1d"
        wait = 0
        max_lease = "1m"

        [plugins.checkout]
        caches = ["pages", "near"]
        access = "read-only"
        namespace = "checkout"
        max_bytes = "1MiB"
        max_concurrent_calls = 7
        outgoing_hosts = ["api.example.com"]

        [sandbox]
        max_memory = "64MiB"
        timeout = "5s"
        max_cpu_time = "1s"
        max_output = "1KiB"
        max_dir_bytes = "2KiB"
        max_handles = 10
        max_vacancies = 2
        max_log_lines = 5
        max_outgoing_requests = 3
        max_key_bytes = 100
        max_pattern_bytes = 50
        max_batch = 65536
        max_batch_bytes = "1MiB"
        max_plugin_bytes = "1MiB"
        max_compile_memory = "256MiB"
        compile_timeout = "1m"
        max_core_instances = 6
        max_memories = 2
        max_tables = 3
        "#,
    );
    let pages = server(&config, "pages");
    assert_eq!(
        (pages.deployment.to_string().as_str(), pages.db, pages.prefix.as_str()),
        ("valkey.example.com:6380", 1, "app:")
    );
    assert_eq!(pages.username.as_deref(), Some("larder"));
    assert_eq!((pages.connect_timeout, pages.timeout), (Duration::from_secs(1), Duration::from_millis(250)));
    let tls = pages.tls.as_ref().unwrap();
    assert_eq!(tls.ca_file.as_deref(), Some(Path::new("ca.pem")));
    let client = tls.client.as_ref().unwrap();
    assert_eq!(
        (client.cert_file.as_path(), client.key_file.as_path()),
        (Path::new("larder.pem"), Path::new("/run/larder.key"))
    );
    let policy = &config.caches["pages"].policy;
    assert_eq!(policy.default_expire, Some(Duration::from_secs(600)));
    assert_eq!(policy.max_expire, Some(Duration::from_secs(3600)));
    assert_eq!((policy.max_value_bytes, policy.wait), (2 << 20, Duration::from_millis(1500)));
    assert_eq!(server(&config, "pages").lease, Duration::from_secs(3));
    assert_eq!(server(&config, "pages").connections, 4);
    assert_eq!(policy.on_outage, OnOutage::Error);
    assert_eq!(policy.max_lease, Duration::from_secs(30));
    assert_eq!(config.caches["near"].policy.max_lease, Duration::from_secs(60));
    let grant = config.grant("checkout");
    assert_eq!(grant.caches.as_deref(), Some(&["pages".to_owned(), "near".to_owned()][..]));
    assert_eq!(grant.access, Access::ReadOnly);
    assert_eq!(grant.max_bytes, Some(1 << 20));
    assert_eq!(grant.max_concurrent_calls, 7);
    assert_eq!(grant.outgoing_hosts, [OutgoingHost::try_from("api.example.com").unwrap()]);
    let near = &config.caches["near"];
    let shares = vec![(grant.namespace.unwrap(), 1 << 20)];
    assert_eq!(near.backend, BackendConfig::Ram { max_bytes: 8 << 20, shares });
    assert_eq!((near.policy.default_expire, near.policy.wait), (None, Duration::ZERO));
    let sandbox = Sandbox {
        max_memory: 64 << 20,
        timeout: Duration::from_secs(5),
        max_cpu_time: Duration::from_secs(1),
        max_output: 1024,
        max_dir_bytes: 2048,
        max_handles: 10,
        max_vacancies: 2,
        max_log_lines: 5,
        max_outgoing_requests: 3,
        limits: limits([100, 50, 65_536, 1 << 20]),
        loading: Loading {
            max_plugin_bytes: 1 << 20,
            max_compile_memory: Some(1 << 28),
            compile_timeout: Duration::from_secs(60),
            max_core_instances: 6,
            max_memories: 2,
            max_tables: 3,
        },
    };
    assert_eq!(config.sandbox, sandbox);
}

#[test]
fn an_empty_near_table_keeps_64_mib_for_a_second() {
    let config = parse("[caches.c]\ntype = \"valkey\"\nnear = {}\n");
    let near = server(&config, "c").near.as_ref().unwrap();
    assert_eq!((near.max_bytes, near.max_staleness), (64 << 20, Duration::from_secs(1)));
    assert_eq!((near.max_value_bytes, near.max_expire, near.shares.len()), (64 << 10, None, 0));
    assert_eq!(server(&parse("[caches.c]\ntype = \"valkey\"\n"), "c").near, None);
}

#[test]
fn max_bytes_of_a_plugin_is_its_share_of_a_near_tier_too() {
    let toml = "[caches.c]\ntype = \"valkey\"\nnear = {}\n[plugins.shop]\nnamespace = \"shop\"\nmax_bytes = \"4MiB\"\n";
    let config = parse(toml);
    let shares = vec![(config.grant("shop").namespace.unwrap(), 4 << 20)];
    assert_eq!(server(&config, "c").near.as_ref().unwrap().shares, shares);
}

#[test]
fn a_plugin_without_a_table_has_full_access_to_the_caches() {
    let grant = parse("").grant("any");
    assert_eq!((grant.caches, grant.access, grant.namespace), (None, Access::ReadWrite, None));
    assert_eq!(grant.max_concurrent_calls, 1024);
    assert!(grant.outgoing_hosts.is_empty());
}

mod environment {
    use super::*;

    #[test]
    fn valkey_host_and_port_replace_absent_keys() {
        let variables = [("VALKEY_HOST", "valkey.test"), ("VALKEY_PORT", "7000"), ("REDIS_HOST", "wrong")];
        let config = parse_with("[caches.c]\ntype = \"valkey\"", &variables).unwrap();
        assert_eq!(server(&config, "c").deployment.to_string(), "valkey.test:7000");
        let config = parse_with("[caches.c]\ntype = \"valkey\"\nhost = \"here\"\nport = 1", &variables).unwrap();
        assert_eq!(server(&config, "c").deployment.to_string(), "here:1");
    }

    #[test]
    fn type_redis_reads_redis_host_and_port() {
        let variables = [("VALKEY_HOST", "wrong"), ("REDIS_HOST", "redis.test"), ("REDIS_PORT", "7001")];
        let config = parse_with("[caches.c]\ntype = \"redis\"", &variables).unwrap();
        assert_eq!(server(&config, "c").deployment.to_string(), "redis.test:7001");
    }

    #[test]
    fn an_empty_environment_variable_is_ignored() {
        let config = parse_with("[caches.c]\ntype = \"valkey\"", &[("VALKEY_HOST", ""), ("VALKEY_PORT", "")]).unwrap();
        assert_eq!(server(&config, "c").deployment.to_string(), "localhost:6379");
    }

    #[test]
    fn an_invalid_port_in_the_environment_is_reported() {
        let error = parse_with("[caches.c]\ntype = \"valkey\"", &[("VALKEY_PORT", "http")]).unwrap_err().to_string();
        assert!(
            error.contains("`caches.c.port`: from the environment variable `VALKEY_PORT`: `http` is not a port"),
            "{error}"
        );
    }

    #[test]
    fn environment_variables_in_strings_are_substituted() {
        let text = "[caches.c]\ntype = \"valkey\"\nhost = \"${ZONE}.valkey.${DOMAIN}\"\nprefix = \"$${ZONE}:\"";
        let config = parse_with(text, &[("ZONE", "a"), ("DOMAIN", "test")]).unwrap();
        assert_eq!(server(&config, "c").deployment.to_string(), "a.valkey.test:6379");
        assert_eq!(server(&config, "c").prefix, "${ZONE}:");
    }

    #[test]
    fn an_unset_variable_is_an_error_with_a_position() {
        assert_eq!(
            server_refusal("password = \"${VALKEY_PASSWORD}\""),
            "larder.toml:3:12: the environment variable `VALKEY_PASSWORD` is not set"
        );
        assert!(server_refusal("password = \"${OPEN\"").contains("not closed"));
    }
}
