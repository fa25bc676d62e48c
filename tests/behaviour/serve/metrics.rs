//! The metrics of a host, and its endpoints for health and readiness.

use std::collections::{BTreeMap, BTreeSet};

use larder_host::cache::{Access, Duration, Entry, Owner, ScopedCache};
use larder_host::metrics::{
    BUCKETS, CALLS, CONNECTIONS_CLOSED, DROPPED_LOG_LINES, DROPPED_OUTPUT, ENDED_INSTANCES, GET_OR_SET, GOOD_OUTCOMES,
    Kind as MetricKind, LOADS, Metric, NEAR_FLUSHES, NEAR_LOOKUPS, OUTGOING, REFRESHES, REFUSALS, REQUESTS, RUNS, all,
};
use larder_host::{Caches, Config, operator_view};
use larder_tests::{Client, Kind, ServeProcess, Server};
use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The values of an export, by name and labels as they are written.
pub(crate) fn values(export: &str) -> BTreeMap<&str, f64> {
    let lines = export.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').map(|(what, value)| (what, value.parse().unwrap())).unwrap()).collect()
}

/// The caches of a configuration, and a recorder of this thread that receives their metrics.
pub(crate) async fn watched(config: &str) -> (Caches, PrometheusHandle, LocalRecorderGuard<'static>) {
    let recorder: &'static _ =
        Box::leak(Box::new(PrometheusBuilder::new().set_buckets(BUCKETS).unwrap().build_recorder()));
    let guard = metrics::set_default_local_recorder(recorder);
    let caches = Caches::connect(Config::from_toml(config).unwrap()).await.unwrap();
    (caches, recorder.handle(), guard)
}

fn view(caches: &Caches) -> ScopedCache {
    operator_view(caches.get("c").unwrap().clone(), None)
}

const RAM: &str = "[caches.c]\ntype = \"ram\"\nmax_bytes = \"2MiB\"\n";

mod calls {
    use super::*;

    /// The calls so far, by operation and outcome.
    fn calls(handle: &PrometheusHandle) -> BTreeMap<String, f64> {
        let export = handle.render();
        let of_call = |(what, value): (&str, f64)| {
            let labels = what.strip_prefix("larder_calls_total{cache=\"c\",operation=\"")?.strip_suffix("\"}")?;
            Some((labels.replace("\",outcome=\"", " "), value)).filter(|_| value > 0.0)
        };
        values(&export).into_iter().filter_map(of_call).collect()
    }

    /// The number of timed calls, of three calls of `get` and of `get-or-set`.
    async fn every_call_is_counted_by_its_outcome(config: &str, [gets, gets_or_sets]: [f64; 2]) {
        let (caches, handle, _guard) = watched(config).await;
        let cache = view(&caches);
        assert_eq!(cache.get("k").await, Ok(None));
        cache.set("k", "v".into(), Duration::Default).await.unwrap();
        assert!(cache.get("k").await.unwrap().is_some());
        assert!(cache.get("k").await.unwrap().is_some());
        let many = ["k", "k", "none"].map(str::to_owned);
        assert_eq!(cache.get_many(&many).await.unwrap().len(), 3);
        cache.set_many(vec![("m".to_owned(), vec![1])], Duration::Default).await.unwrap();
        let Entry::Vacant(vacancy) = cache.get_or_set("g").await.unwrap() else { panic!("it has a value") };
        assert_eq!(values(&handle.render())["larder_vacancies{cache=\"c\"}"], 1.0);
        assert!(cache.fill(vacancy, "v".into(), Duration::Default).await.unwrap());
        assert_eq!(values(&handle.render())["larder_vacancies{cache=\"c\"}"], 0.0);
        assert!(matches!(cache.get_or_set("g").await.unwrap(), Entry::Occupied(_)));
        let Entry::Vacant(vacancy) = cache.get_or_set("h").await.unwrap() else { panic!("it has a value") };
        assert!(!cache.clear("h").await.unwrap());
        assert!(!cache.fill(vacancy, "v".into(), Duration::Default).await.unwrap());
        assert_eq!(cache.clear_pattern("g*").await, Ok(1));
        assert_eq!(cache.clear_all().await, Ok(2));
        // Calls that come to nothing.
        cache.get("").await.unwrap_err();
        cache.get_many(&[String::new()]).await.unwrap_err();
        cache.set("k", vec![0; 2 << 20].into(), Duration::Default).await.unwrap_err();
        cache.clear_pattern("").await.unwrap_err();
        let reader = ScopedCache::new(caches.get("c").unwrap().clone(), None, Access::ReadOnly, Owner::new());
        reader.clear_all().await.unwrap_err();
        reader.get_or_set("k").await.unwrap_err();
        let expected = [
            ("clear ok", 1.0),
            ("clear-all access-denied", 1.0),
            ("clear-all ok", 1.0),
            ("clear-pattern invalid-argument", 1.0),
            ("clear-pattern ok", 1.0),
            ("fill stored", 1.0),
            ("fill superseded", 1.0),
            ("get hit", 2.0),
            ("get invalid-argument", 1.0),
            ("get miss", 1.0),
            ("get-many invalid-argument", 1.0),
            ("get-many ok", 1.0),
            ("get-or-set access-denied", 1.0),
            ("get-or-set hit", 1.0),
            ("get-or-set miss", 2.0),
            ("set ok", 1.0),
            ("set value-too-large", 1.0),
            ("set-many ok", 1.0),
        ];
        assert_eq!(calls(&handle), expected.map(|(call, count)| (call.to_owned(), count)).into());
        let outcomes: BTreeSet<_> = expected.iter().filter_map(|(call, _)| Some(call.split_once(' ')?.1)).collect();
        let good: BTreeSet<_> = GOOD_OUTCOMES.iter().copied().collect();
        let errors: BTreeSet<_> = ["access-denied", "invalid-argument", "value-too-large"].into();
        assert_eq!(outcomes, &good | &errors);
        caches.publish();
        let export = handle.render();
        let values = values(&export);
        assert_eq!(values["larder_get_many_keys_total{cache=\"c\",outcome=\"hit\"}"], 2.0);
        assert_eq!(values["larder_get_many_keys_total{cache=\"c\",outcome=\"miss\"}"], 1.0);
        assert_eq!(values["larder_get_or_set_total{cache=\"c\",event=\"computed\"}"], 2.0);
        assert_eq!(values["larder_get_or_set_total{cache=\"c\",event=\"superseded\"}"], 1.0);
        // What was refused never came to the backend.
        let taken = |operation: &str| {
            let count = |(what, count): (&&str, &f64)| {
                let is_it =
                    what.starts_with("larder_backend_seconds_count") && what.contains(&format!("\"{operation}\""));
                is_it.then_some(*count)
            };
            values.iter().find_map(count)
        };
        for (operation, count) in
            [("get", gets), ("get-many", 1.0), ("get-or-set", gets_or_sets), ("fill", 2.0), ("clear-all", 1.0)]
        {
            assert_eq!(taken(operation), Some(count), "{operation}");
        }
    }

    #[tokio::test]
    async fn every_call_is_counted_by_its_outcome_in_ram() {
        // One in 64 of those that are answered at once, the first of them included; misses of get-or-set are not.
        every_call_is_counted_by_its_outcome(RAM, [1.0, 2.0]).await;
    }

    #[tokio::test]
    async fn every_call_is_counted_by_its_outcome_on_a_server() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        every_call_is_counted_by_its_outcome(&server.cache("c"), [3.0, 3.0]).await;
    }

    #[tokio::test]
    async fn a_vacancy_that_is_dropped_is_no_longer_held() {
        let (caches, handle, _guard) = watched(RAM).await;
        let cache = view(&caches);
        let held = cache.get_or_set("k").await.unwrap();
        assert_eq!(values(&handle.render())["larder_vacancies{cache=\"c\"}"], 1.0);
        drop(held);
        assert_eq!(values(&handle.render())["larder_vacancies{cache=\"c\"}"], 0.0);
    }
}

mod standing {
    use super::*;

    #[tokio::test]
    async fn a_ram_cache_exports_its_size_and_its_evictions() {
        let (caches, handle, _guard) = watched(RAM).await;
        let cache = view(&caches);
        let of = |export: &str, name: &str| values(export)[format!("{name}{{cache=\"c\"}}").as_str()];
        // A value that is replaced is not an eviction.
        for _ in 0..3 {
            cache.set("k", vec![0; 1000].into(), Duration::Default).await.unwrap();
        }
        caches.publish();
        let export = handle.render();
        assert_eq!(of(&export, "larder_ram_entries"), 1.0);
        assert_eq!(of(&export, "larder_ram_bytes"), 1000.0 + 1.0 + larder_host::cache::ram::ENTRY_OVERHEAD as f64);
        assert_eq!(of(&export, "larder_ram_max_bytes"), f64::from(2 << 20));
        assert_eq!(of(&export, "larder_ram_evictions_total"), 0.0);
        for n in 0..5000 {
            cache.set(&format!("k{n}"), vec![0; 1000].into(), Duration::Default).await.unwrap();
        }
        caches.publish();
        let export = handle.render();
        // What was set and is not there made room for others.
        assert_eq!(of(&export, "larder_ram_entries") + of(&export, "larder_ram_evictions_total"), 5001.0);
        assert!(of(&export, "larder_ram_bytes") <= f64::from(2 << 20));
    }

    #[tokio::test]
    async fn a_lost_server_is_down_its_reads_are_degraded_and_its_return_a_reconnect() {
        let Some(mut server) = Server::start(Kind::Valkey) else { return };
        let (caches, handle, _guard) = watched(&server.cache("c")).await;
        let cache = view(&caches);
        let of = |name: &str| {
            caches.publish();
            values(&handle.render())[format!("{name}{{cache=\"c\"}}").as_str()]
        };
        assert_eq!((of("larder_up"), of("larder_reconnects_total")), (1.0, 0.0));
        server.kill();
        assert_eq!(cache.get("k").await, Ok(None));
        assert_eq!((of("larder_up"), of("larder_degraded_reads_total")), (0.0, 1.0));
        server.restart();
        let back = async {
            while of("larder_up") == 0.0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(larder_tests::TEST_TIMEOUT, back).await.expect("the connection comes back");
        assert_eq!(of("larder_reconnects_total"), 1.0);
    }
}

mod endpoint {
    use super::*;

    #[tokio::test]
    async fn every_metric_is_exported_with_its_kind_and_labels() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        let ram = "default = \"c\"\n[plugins.http]\nreuse = {}\n[caches.ram]\ntype = \"ram\"\nmax_bytes = \"2MiB\"\n";
        let config = format!("{ram}{}near = {{}}\n", server.cache("c"));
        let serving = ServeProcess::start_with_metrics(&config);
        for path in [
            "/fetch?http://localhost/secret",
            "/compute/secret-key",
            "/compute/secret-key",
            "/visit/secret-other",
            "/panic",
        ] {
            serving.get(path).await;
        }
        let export = serving.get_from_metrics_port("/metrics").await.body;
        let values = values(&export);
        for Metric { name, kind, labels, .. } in all() {
            assert!(export.contains(&format!("# TYPE {name} {}\n", kind.name())), "{name}");
            assert!(export.contains(&format!("# HELP {name} ")), "{name}");
            let suffix = if *kind == MetricKind::Histogram { "_count" } else { "" };
            // Without labels nothing follows the name.
            let exported: Vec<_> = values
                .keys()
                .filter_map(|what| what.strip_prefix(&format!("{name}{suffix}")))
                .filter(|labels| labels.is_empty() || labels.starts_with('{'))
                .collect();
            assert!(!exported.is_empty(), "{name} in {export}");
            for exported_labels in exported {
                let keys: BTreeSet<&str> = exported_labels
                    .trim_matches(['{', '}'])
                    .split(',')
                    .filter(|label| !label.is_empty())
                    .map(|label| label.split('=').next().unwrap())
                    .collect();
                assert_eq!(keys, labels.iter().copied().collect(), "{name}");
            }
        }
        assert!(!export.contains("secret"), "{export}");
        assert_eq!(values["larder_requests_total{plugin=\"http\",status=\"2xx\"}"], 3.0);
        assert_eq!(values["larder_requests_total{plugin=\"http\",status=\"5xx\"}"], 2.0);
        assert_eq!(values["larder_refused_requests_total{reason=\"failed\"}"], 1.0);
        assert_eq!(values["larder_runs_total{plugin=\"http\",outcome=\"trapped\"}"], 1.0);
        assert_eq!(values["larder_request_seconds_count{plugin=\"http\"}"], 5.0);
        assert_eq!(values["larder_outgoing_requests_total{plugin=\"http\",outcome=\"denied\"}"], 1.0);
        assert_eq!(values["larder_calls_total{cache=\"c\",operation=\"get-or-set\",outcome=\"miss\"}"], 1.0);
        assert_eq!(values["larder_calls_total{cache=\"c\",operation=\"get-or-set\",outcome=\"hit\"}"], 1.0);
        let names: BTreeSet<&str> =
            export.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names, all().map(|metric| metric.name).collect(), "no other metric is exported");
    }

    /// The values of one label of a metric in an export, of the series of plugin or cache `of`, all of which must be 0.
    fn unused(export: &str, metric: &Metric, label: &str, of: &str) -> BTreeSet<String> {
        let of_metric = |(series, value): (&str, f64)| {
            let labels = series.strip_prefix(metric.name)?.strip_prefix('{').filter(|labels| labels.contains(of))?;
            assert!(value == 0.0 || *metric == LOADS, "{series} is {value}");
            let (_, rest) = labels.split_once(&format!("{label}=\""))?;
            Some(rest.split('"').next()?.to_owned())
        };
        values(export).into_iter().filter_map(of_metric).collect()
    }

    /// The values that the help text of a metric names: words without capitals, spaces and underscores.
    fn named(metric: &Metric) -> BTreeSet<String> {
        let is_value = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-');
        metric.help.split('`').skip(1).step_by(2).filter(is_value).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_outcome_is_0_from_the_start() {
        let serving = ServeProcess::start_with_metrics(&format!("{RAM}[plugins.http]\nreuse = {{}}\n"));
        let export = serving.get_from_metrics_port("/metrics").await.body;
        for (metric, label, of) in [
            (LOADS, "outcome", "plugin=\"http\""),
            (OUTGOING, "outcome", "plugin=\"http\""),
            (REFUSALS, "reason", ""),
            (CONNECTIONS_CLOSED, "reason", ""),
            (GET_OR_SET, "event", "cache=\"c\""),
            (REFRESHES, "outcome", "cache=\"c\""),
            (DROPPED_OUTPUT, "stream", "plugin=\"http\""),
        ] {
            assert_eq!(unused(&export, &metric, label, of), named(&metric), "{}", metric.name);
        }
        let limits = ["max_cpu_time", "max_memory", "max_output", "timeout"].map(str::to_owned);
        assert_eq!(unused(&export, &RUNS, "outcome", "plugin=\"http\""), &named(&RUNS) | &limits.into());
        let ends = unused(&export, &ENDED_INSTANCES, "reason", "plugin=\"http\"");
        assert_eq!(ends, &named(&ENDED_INSTANCES) | &["max_age".to_owned()].into());
        assert_eq!(unused(&export, &DROPPED_LOG_LINES, "stream", ""), ["stderr", "stdout"].map(str::to_owned).into());
        let classes = ["2xx", "3xx", "4xx", "5xx", "gone"].map(str::to_owned);
        for plugin in ["plugin=\"http\"", "plugin=\"-\""] {
            assert_eq!(unused(&export, &REQUESTS, "status", plugin), classes.clone().into());
        }
        let errors = ["access-denied", "invalid-argument", "other", "timeout", "unavailable", "value-too-large"];
        for (operations, good) in [
            (&["get", "get-or-set", "get-or-refresh"][..], &["hit", "miss"][..]),
            (&["fill", "fill-stale"], &["stored", "superseded"]),
            (&["get-many", "set", "set-many", "clear", "clear-pattern", "clear-all"], &["ok"]),
        ] {
            for operation in operations {
                let series = unused(&export, &CALLS, "outcome", &format!("operation=\"{operation}\""));
                assert_eq!(
                    series,
                    good.iter().chain(&errors).map(|&outcome| outcome.to_owned()).collect(),
                    "{operation}"
                );
            }
        }
    }

    #[tokio::test]
    async fn every_outcome_of_a_near_tier_is_0_from_the_start() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        let serving = ServeProcess::start_with_metrics(&format!("{}near = {{}}\n", server.cache("c")));
        let export = serving.get_from_metrics_port("/metrics").await.body;
        for (metric, label) in [(NEAR_LOOKUPS, "outcome"), (NEAR_FLUSHES, "cause")] {
            assert_eq!(unused(&export, &metric, label, "cache=\"c\""), named(&metric), "{}", metric.name);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_metrics_of_the_process_are_those_of_the_system() {
        let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let mut serving = ServeProcess::start_with_metrics("");
        let folder = std::path::PathBuf::from(format!("/proc/{}", serving.process().id()));
        let export = async || serving.get_from_metrics_port("/metrics").await.body;
        let of = |export: &str, name: &str| values(export)[name];
        let first = export().await;
        assert_eq!(of(&first, &format!("larder_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
        let start = of(&first, "process_start_time_seconds");
        assert!(start >= began && start <= began + larder_tests::TEST_TIMEOUT.as_secs_f64(), "{start}");
        let (resident, virtual_memory) =
            (of(&first, "process_resident_memory_bytes"), of(&first, "process_virtual_memory_bytes"));
        assert!(resident > f64::from(1 << 20) && resident < virtual_memory, "{resident} {virtual_memory}");
        assert!(of(&first, "process_threads") >= 2.0);
        let limits = std::fs::read_to_string(folder.join("limits")).unwrap();
        let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let limit: f64 = limit.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert_eq!(of(&first, "process_max_fds"), limit);

        // Connections have a descriptor each, and requests take processor time.
        let mut clients = Vec::new();
        for _ in 0..30 {
            let client = Client::connect(serving.address()).await;
            client.get("/hello").await.unwrap();
            clients.push(client);
        }
        let second = export().await;
        assert!(of(&second, "process_open_fds") >= of(&first, "process_open_fds") + 25.0, "{first}\n{second}");
        let more = async {
            while of(&export().await, "process_cpu_seconds_total") <= of(&first, "process_cpu_seconds_total") {
                clients[0].get("/hello").await.unwrap();
            }
        };
        tokio::time::timeout(larder_tests::TEST_TIMEOUT, more).await.expect("processor time grows");
    }

    #[tokio::test]
    async fn the_metrics_endpoint_serves_its_paths_and_refuses_others() {
        let serving = ServeProcess::start_with_metrics("");
        assert_eq!(serving.get_from_metrics_port("/healthz").await.body, "alive\n");
        assert_eq!(serving.get_from_metrics_port("/").await.status, 404);
        let posted = Client::connect(serving.metrics_address()).await.send("/metrics", "").await.unwrap();
        assert_eq!(posted.status, 405);
        // It is none of the plugins' and they are none of its.
        assert_eq!(serving.get("/metrics").await.status, 404);
        assert_eq!(serving.get_from_metrics_port("/hello").await.status, 404);
    }

    #[tokio::test]
    async fn an_instance_that_runs_is_counted_until_it_ends() {
        let mut serving = ServeProcess::start_with_metrics("");
        let client = Client::connect(serving.address()).await;
        let running = tokio::spawn(async move { client.get("/doze/500").await.unwrap() });
        serving.expect_line("http: dozing").await;
        let instances = "larder_instances{plugin=\"http\"}";
        assert_eq!(values(&serving.get_from_metrics_port("/metrics").await.body)[instances], 1.0);
        assert_eq!(running.await.unwrap().body, "dozed");
        let over = async { while values(&serving.get_from_metrics_port("/metrics").await.body)[instances] > 0.0 {} };
        tokio::time::timeout(larder_tests::TEST_TIMEOUT, over).await.expect("it is over");
    }
}

mod readiness {
    use super::*;

    #[tokio::test]
    async fn a_host_without_its_server_is_ready_only_if_reads_may_be_misses() {
        let Some(mut server) = Server::start(Kind::Valkey) else { return };
        let cache = server.cache("c") + "timeout = \"200ms\"\n";
        let lenient = ServeProcess::start_with_metrics(&cache);
        let strict = ServeProcess::start_with_metrics(&(cache + "on_outage = \"error\"\n"));
        for serving in [&lenient, &strict] {
            let answer = serving.get_from_metrics_port("/readyz").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "c: ready\n"));
        }
        // A server that hangs is detected like one that is unreachable.
        server.freeze();
        assert_eq!(
            (
                lenient.get_from_metrics_port("/readyz").await.status,
                strict.get_from_metrics_port("/readyz").await.status
            ),
            (200, 503)
        );
        server.thaw();
        server.kill();
        let answer = lenient.get_from_metrics_port("/readyz").await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with("c: degraded, reads are misses: "), "{}", answer.body);
        let answer = strict.get_from_metrics_port("/readyz").await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.starts_with("c: not ready: "), "{}", answer.body);
        assert_eq!(strict.get_from_metrics_port("/healthz").await.status, 200);
    }

    #[tokio::test]
    async fn a_host_that_is_shutting_down_is_not_ready() {
        let mut serving = ServeProcess::start_with_metrics("");
        let client = Client::connect(serving.address()).await;
        let running = tokio::spawn(async move { client.get("/doze/1000").await.unwrap() });
        serving.expect_line("http: dozing").await;
        serving.process().terminate();
        let reported = async { while serving.get_from_metrics_port("/readyz").await.status != 503 {} };
        tokio::time::timeout(larder_tests::TEST_TIMEOUT, reported).await.expect("it is not ready");
        assert_eq!(serving.get_from_metrics_port("/readyz").await.body, "the host is shutting down\n");
        assert_eq!(running.await.unwrap().body, "dozed");
    }
}
