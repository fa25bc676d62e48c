//! kubernetes.yaml.

use larder_host::config::BackendConfig;
use larder_tests::{Client, Kind, Server};

use super::*;

fn of_kind(kind: &str) -> Value {
    let mut found = yaml("deploy/kubernetes.yaml").into_iter().filter(|document| document["kind"] == kind);
    let document = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several of {kind}");
    document
}

fn pod() -> Value {
    of_kind("Deployment")["spec"]["template"]["spec"].clone()
}

fn container() -> Value {
    let [container] = list(&pod()["containers"]).to_owned().try_into().unwrap();
    container
}

/// The number of a named port of the container.
fn port(name: &Value) -> u16 {
    let ports = list(&container()["ports"]).to_owned();
    let port = ports.iter().find(|port| port["name"] == *name).unwrap_or_else(|| panic!("no port is named {name}"));
    port["containerPort"].as_u64().unwrap().try_into().unwrap()
}

/// The mount path of a volume of one kind, and the volume.
fn mount(kind: &str) -> (String, Value) {
    let pod = pod();
    let volume = list(&pod["volumes"]).iter().find(|volume| !volume[kind].is_null()).unwrap();
    let container = container();
    let mount = list(&container["volumeMounts"]).iter().find(|mount| mount["name"] == volume["name"]).unwrap();
    assert!(kind == "emptyDir" || mount["readOnly"] == true);
    (text(&mount["mountPath"]).to_owned(), volume[kind].clone())
}

/// The configuration, its file of the password being another one.
fn host(password_file: &Path) -> Host {
    let config = of_kind("ConfigMap");
    let (folder, volume) = mount("configMap");
    assert_eq!(volume["name"], config["metadata"]["name"]);
    let [file] = names(&config["data"])[..] else { panic!("there are several files") };
    let (secrets, secret) = mount("secret");
    let written = format!("{secrets}/{}", text(&secret["items"][0]["path"]));
    let toml = text(&config["data"][file]);
    assert!(toml.contains(&format!("password_file = \"{written}\"")), "`{written}` is not read");
    let container = container();
    let variables = list(&container["env"]).iter();
    let grace = pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    Host {
        toml: toml.replace(&written, &password_file.display().to_string()),
        config_path: format!("{folder}/{file}"),
        command: texts(&container["args"]).into_iter().map(str::to_owned).collect(),
        environment: variables
            .map(|variable| (text(&variable["name"]).to_owned(), text(&variable["value"]).to_owned()))
            .collect(),
        writable: None,
        plugins: "/plugins".to_owned(),
        memory: bytes(text(&container["resources"]["limits"]["memory"])),
        grace: Duration::from_secs(grace - before),
    }
}

fn password_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "s3cret\n").unwrap();
    file
}

#[test]
fn the_hosts_agree_with_their_configuration_and_bounds() {
    let password = password_file();
    let host = host(password.path());
    host.assert_sound();
    assert_understood(&host.command);
    assert_eq!((port(&"http".into()), port(&"metrics".into())), (host.port(), host.metrics_port()));
    assert_version(text(&container()["image"]));
    // Else the cluster gives each container a VALKEY_PORT that is a URL.
    assert_eq!(pod()["enableServiceLinks"], false);
}

#[test]
fn every_part_finds_the_pods_and_their_ports() {
    let deployment = of_kind("Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(names(labels), ["app"]);
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &of_kind("Service")["spec"]["selector"],
        &of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        &pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let password = password_file();
    let host = host(password.path());
    assert_eq!(port(&of_kind("Service")["spec"]["ports"][0]["targetPort"]), host.port());
    let policy = of_kind("NetworkPolicy");
    let [requests, metrics] = list(&policy["spec"]["ingress"]) else { panic!("{policy}") };
    assert_eq!((port(&requests["ports"][0]["port"]), &requests["from"]), (host.port(), &Value::Null));
    assert_eq!(port(&metrics["ports"][0]["port"]), host.metrics_port());
    assert_eq!(list(&metrics["from"]).len(), 1, "only Prometheus may read the metrics");
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], host.metrics_port().to_string());
    assert_eq!(
        (&annotations["prometheus.io/scrape"], &annotations["prometheus.io/path"]),
        (&"true".into(), &"/metrics".into())
    );
}

#[test]
fn one_host_may_go_while_the_others_serve() {
    let replicas = of_kind("Deployment")["spec"]["replicas"].as_u64().unwrap();
    let least = of_kind("PodDisruptionBudget")["spec"]["minAvailable"].as_u64().unwrap();
    assert_eq!((replicas, least), (3, 2));
    // A roll-out ends no host before another is ready, and a pod that is not ready does not stop a drain.
    let roll_out = &of_kind("Deployment")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!((&roll_out["maxUnavailable"], &roll_out["maxSurge"]), (&0.into(), &1.into()));
    assert_eq!(of_kind("PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
}

/// docs/kubernetes.md explains the settings with their values.
#[test]
fn the_page_has_the_values_of_the_file() {
    let page = read("docs/kubernetes.md");
    let (container, pod) = (container(), pod());
    let after = |probe: &str| {
        let probe = &container[probe];
        let tries = probe["failureThreshold"].as_u64().unwrap_or(3);
        (text(&probe["httpGet"]["path"]).to_owned(), tries * probe["periodSeconds"].as_u64().unwrap())
    };
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let (path, seconds) = after(probe);
        let row = page.lines().find(|line| line.starts_with(&format!("| `{probe}` | `{path}` |")));
        let row = row.unwrap_or_else(|| panic!("the page has no `{path}` for `{probe}`"));
        assert!(row.contains(&format!("After {seconds} s, ")), "{row}");
    }
    let spec = &of_kind("Deployment")["spec"];
    let grace = &pod["terminationGracePeriodSeconds"];
    let sleep = &container["lifecycle"]["preStop"]["sleep"]["seconds"];
    let shutdown = Config::default().serve.shutdown_timeout.as_secs();
    for row in [
        format!("| `minReadySeconds` | {} |", spec["minReadySeconds"]),
        format!("| `preStop` | sleep of {sleep} s |"),
        format!("| `shutdown_timeout` of `[serve]` | {shutdown} s |"),
        format!("| `terminationGracePeriodSeconds` | {grace} |"),
    ] {
        assert!(page.contains(&row), "{row}");
    }
    // `/readyz` waits for the server, and 1 s more.
    let probe = Duration::from_secs(container["readinessProbe"]["timeoutSeconds"].as_u64().unwrap());
    let password = password_file();
    for cache in host(password.path()).config().caches.values() {
        let BackendConfig::Server(options) = &cache.backend else { panic!("it is shared") };
        assert!(probe > options.timeout + Duration::from_secs(1));
    }
}

/// The kubelet does not update a file that is mounted by `subPath`.
#[test]
fn the_secret_is_mounted_so_that_a_changed_password_arrives() {
    for mount in list(&container()["volumeMounts"]) {
        assert_eq!(mount["subPath"], Value::Null, "{mount}");
    }
}

#[test]
fn the_hosts_have_no_rights_that_they_do_not_need() {
    let (pod, container) = (pod(), container());
    let (all, own) = (&pod["securityContext"], &container["securityContext"]);
    assert_eq!((&all["runAsNonRoot"], &all["seccompProfile"]["type"]), (&true.into(), &"RuntimeDefault".into()));
    // The user of the image, whose group may read the password.
    let user = format!("USER {}:{}\n", all["runAsUser"], all["runAsGroup"]);
    assert!(read("deploy/Dockerfile").contains(&user), "{user}");
    assert_eq!(all["fsGroup"], all["runAsGroup"]);
    assert_eq!((&own["allowPrivilegeEscalation"], &own["readOnlyRootFilesystem"]), (&false.into(), &true.into()));
    assert_eq!(texts(&own["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(read("deploy/kubernetes.yaml").contains("defaultMode: 0440"));
}

#[tokio::test]
async fn a_host_runs_with_its_password_and_answers_the_probes() {
    let Some(server) = Server::start_with(Kind::Valkey, &["--requirepass", "s3cret"]) else { return };
    let password = password_file();
    let host = host(password.path());
    let place = format!("host = \"127.0.0.1\"\nport = {}", server.port());
    let running = host.start(&[("host = \"valkey\"", &place)], &[]);
    assert_eq!(running.serving.get("/hello").await.body, "<h1>/hello</h1>\n");
    let config = host.config();
    let BackendConfig::Server(options) = &config.caches["shared"].backend else { panic!("it is shared") };
    let metrics = running.metrics.parse().unwrap();
    let container = container();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let ask = &container[probe]["httpGet"];
        assert_eq!(port(&ask["port"]), host.metrics_port());
        let answer = Client::connect(metrics).await.get(text(&ask["path"])).await.unwrap();
        let expected = if probe == "readinessProbe" { "shared: ready\n" } else { "alive\n" };
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{probe}");
    }
    let patience = Duration::from_secs(container["readinessProbe"]["timeoutSeconds"].as_u64().unwrap());
    assert!(patience > options.timeout, "a frozen server must not make the probe time out");
    running.serving.terminate().await;
}
