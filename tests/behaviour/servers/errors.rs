//! The errors of calls: what the plugin gets, what the log says, and the name in the metrics.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use larder_host::cache::{
    Cache, CacheBackend, CacheError, Claim, Health, Key, KeyPage, Lease, ListCursor, OnOutage, Policy, Release,
    Selection, Version, WithLife,
};
use larder_tests::{Fault, Kind, Larder, LarderOutput, Relay, Server, wait_for};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::backends::{bytes, view};

type Duration = Option<std::time::Duration>;

/// A backend whose calls all fail with this error.
#[derive(Debug)]
struct Failing(CacheError);

#[async_trait]
impl CacheBackend for Failing {
    async fn get(&self, _key: &Key) -> Result<Option<Bytes>, CacheError> {
        Err(self.0.clone())
    }

    async fn get_many(&self, _keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        Err(self.0.clone())
    }

    async fn set(&self, _key: Key, _value: Bytes, _duration: Duration) -> Result<(), CacheError> {
        Err(self.0.clone())
    }

    async fn set_many(&self, _entries: Vec<(Key, Bytes)>, _duration: Duration) -> Result<(), CacheError> {
        Err(self.0.clone())
    }

    async fn clear(&self, _key: &Key) -> Result<bool, CacheError> {
        Err(self.0.clone())
    }

    async fn clear_matching(&self, _selection: &Selection) -> Result<u64, CacheError> {
        Err(self.0.clone())
    }

    async fn claim(&self, _key: &Key, _lease: &Lease) -> Result<Claim, CacheError> {
        Err(self.0.clone())
    }

    async fn changed(&self, _key: &Key, _lease: &Lease) -> Result<(), CacheError> {
        Err(self.0.clone())
    }

    async fn fill(&self, _: Key, _: &Lease, _value: Bytes, _duration: Duration) -> Result<bool, CacheError> {
        Err(self.0.clone())
    }

    async fn get_with_life(&self, _key: &Key) -> Result<Option<WithLife>, CacheError> {
        Err(self.0.clone())
    }

    async fn get_version(&self, _key: &Key) -> Result<Option<(WithLife, Version)>, CacheError> {
        Err(self.0.clone())
    }

    async fn exists(&self, _key: &Key) -> Result<bool, CacheError> {
        Err(self.0.clone())
    }

    async fn list_keys(&self, _: &Selection, _: Option<ListCursor>, _max_keys: usize) -> Result<KeyPage, CacheError> {
        Err(self.0.clone())
    }

    async fn increment(&self, _key: Key, _delta: i64, _duration: Duration) -> Result<i64, CacheError> {
        Err(self.0.clone())
    }

    async fn clear_many(&self, _keys: Vec<Key>) -> Result<u64, CacheError> {
        Err(self.0.clone())
    }

    async fn replace(&self, _: Key, _: Option<&Version>, _: Bytes, _duration: Duration) -> Result<bool, CacheError> {
        Err(self.0.clone())
    }

    fn lease_time(&self) -> Duration {
        None
    }

    async fn renew(&self, _key: &Key, _lease: &Lease) -> Result<bool, CacheError> {
        Err(self.0.clone())
    }

    fn release(&self, _key: &Key, _lease: &Lease) -> Release {
        Box::pin(std::future::ready(Ok(())))
    }

    async fn check(&self) -> Result<Health, CacheError> {
        Err(self.0.clone())
    }
}

/// Each error, and its name in the metrics, which is that of the interface.
fn errors() -> [(CacheError, &'static str); 9] {
    let text = || "a server's own words".to_owned();
    [
        (CacheError::InvalidArgument(text()), "invalid-argument"),
        (CacheError::ValueTooLarge { len: 2, max: 1 }, "value-too-large"),
        (CacheError::ReadOnly, "access-denied"),
        (CacheError::Timeout(std::time::Duration::ZERO), "timeout"),
        (CacheError::Lost(text()), "timeout"),
        (CacheError::Unavailable(text()), "unavailable"),
        (CacheError::Overlap(text()), "unavailable"),
        (CacheError::WrongType, "other"),
        (CacheError::Refused(text()), "other"),
    ]
}

#[tokio::test]
async fn each_error_is_counted_by_the_name_that_the_plugin_gets() {
    for (error, name) in errors() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let mut policy = Policy::default();
        policy.on_outage = OnOutage::Error;
        let cache = view(&Arc::new(Cache::new("c", Arc::new(Failing(error.clone())), policy)));
        assert_eq!(cache.get("k").await, Err(error.clone()));
        assert_eq!(cache.set("k", bytes("v"), larder_host::cache::Duration::Default).await, Err(error.clone()));
        assert_eq!(error.handling().outcome(), name);
        let export = handle.render();
        for operation in ["get", "set"] {
            let labels = format!("{{cache=\"c\",operation=\"{operation}\",outcome=\"{name}\"}} 1");
            assert!(export.contains(&format!("larder_calls_total{labels}\n")), "{labels} is not in:\n{export}");
        }
    }
}

/// Asserts what the plugin printed last, and the only line of the log about the cache: its level and a part of it.
fn assert_reported(run: &LarderOutput, printed: &str, logged: Option<(&str, &str)>) {
    assert_eq!(run.stdout.lines().last(), Some(printed), "{run:#?}");
    let is_of_a_call = |line: &&str| line.contains("cache=\"c\"");
    let lines: Vec<&str> = run.stderr.lines().filter(is_of_a_call).collect();
    match logged {
        None => assert_eq!(lines, [""; 0], "{printed}"),
        Some((level, text)) => {
            assert_eq!(lines.len(), 1, "{printed}: {run:#?}");
            assert!(lines[0].contains(level) && lines[0].contains(text), "{level} {text}: {run:#?}");
        }
    }
}

/// Runs one call of a plugin that fails, with the whole log.
fn call(config: &str, operation: &str) -> LarderOutput {
    Larder::run("script").config(config).arg(operation).env("LARDER_LOG", "larder=debug").succeed()
}

#[test]
fn each_error_is_one_variant_for_the_plugin_and_one_line_in_the_log() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let relay = Relay::to(server.port());
    let config = format!(
        "{}on_outage = \"error\"\nmax_value_bytes = 10\nconnect_timeout = \"20s\"\n",
        server.cache("c").replace(&format!("port = {}", server.port()), &format!("port = {}", relay.port()))
    );
    let patient = format!("{config}timeout = \"20s\"\n");
    let mut client = server.client();
    redis::cmd("RPUSH").arg(&["cache:list", "a"]).exec(&mut client).unwrap();
    redis::cmd("SET").arg(&["cache:long", "eleven byte"]).exec(&mut client).unwrap();

    assert_reported(&call(&patient, "get "), "error InvalidArgument(\"key: must not be empty\")", None);
    assert_reported(
        &call(&patient, "get long"),
        "error ValueTooLarge(10)",
        Some(("WARN", "11 bytes is over the limit")),
    );
    let reader = format!("{patient}[plugins.script]\naccess = \"read-only\"\n");
    assert_reported(&call(&reader, "set k v"), "error AccessDenied", Some(("WARN", "the grant is read-only")));
    let wrong_type = "the key holds a value of another type";
    let printed = format!("error Other(\"{wrong_type}\")");
    assert_reported(&call(&patient, "get list"), &printed, Some(("WARN", wrong_type)));
    let rules = ["SETUSER", "worker", "on", ">s3cret", "~cache:*", "+@all", "-get"];
    redis::cmd("ACL").arg(&rules).exec(&mut client).unwrap();
    let user = format!("{patient}username = \"worker\"\npassword = \"s3cret\"\n");
    let printed = "error Other(\"the server refused the command\")";
    assert_reported(&call(&user, "get k"), printed, Some(("WARN", "the server refused: ")));

    // A plugin whose first call succeeds, before the fault.
    let session = |config: &str| {
        let mut session = Larder::run("session").config(config).env("LARDER_LOG", "larder=debug").start();
        session.write_line("get k");
        assert_eq!(session.read_line(), "miss");
        session
    };
    let mut lost = session(&patient);
    relay.set_fault(Fault::ResetAfter(0));
    lost.write_line("get k");
    assert_eq!(lost.read_line(), "error Timeout");
    relay.set_fault(Fault::None);
    let lost = LarderOutput { stdout: "error Timeout".to_owned(), ..lost.succeed() };
    assert_reported(&lost, "error Timeout", Some(("DEBUG", "the connection was lost before the reply: ")));

    let mut slow = session(&format!("{config}timeout = \"3s\"\n"));
    let frozen = server.freeze_until_drop();
    slow.write_line("get k");
    assert_eq!(slow.read_line(), "error Timeout");
    drop(frozen);
    let slow = LarderOutput { stdout: "error Timeout".to_owned(), ..slow.succeed() };
    assert_reported(&slow, "error Timeout", Some(("DEBUG", "no answer within 3s")));

    let mut away = session(&patient);
    server.kill();
    relay.reset();
    // The host may learn of the loss by a call.
    let answers = || {
        away.write_line("get k");
        Some(away.read_line()).filter(|answer| answer == "error Unavailable")
    };
    wait_for("the server is away", answers);
    let away = away.succeed();
    let last = away.stderr.lines().rfind(|line| line.contains("cache=\"c\"")).unwrap_or_default();
    assert!(last.contains("DEBUG") && last.contains("cannot reach Valkey at `127.0.0.1:"), "{away:#?}");
}
