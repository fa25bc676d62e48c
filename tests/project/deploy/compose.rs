//! compose.yaml and what its containers are given.

use std::collections::{BTreeMap, BTreeSet};

use larder_host::config::BackendConfig;
use larder_tests::{Kind, Larder, Server};
use redis::TypedCommands;
use serde_json::Value;

use super::*;

pub(super) fn compose() -> Value {
    let [compose] = <[Value; 1]>::try_from(yaml("deploy/compose.yaml")).unwrap();
    compose
}

/// A text as it is where the environment says nothing.
fn by_default(written: &str) -> String {
    let parts = written.strip_prefix("${").and_then(|rest| rest.split_once(":-"));
    parts.map_or(written, |(_, rest)| rest.strip_suffix('}').unwrap()).to_owned()
}

/// The file or folder of the repository at each path of the container.
fn binds(service: &Value) -> BTreeMap<String, String> {
    let mounts = service["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bind = |mount: &Value| match mount.as_str() {
        Some(short) if !short.starts_with("./") => None,
        Some(short) => match short.split(':').collect::<Vec<_>>()[..] {
            [source, target, "ro"] => Some((target.to_owned(), source.to_owned())),
            _ => panic!("`{short}` may be written to"),
        },
        None => {
            assert_eq!((&mount["type"], &mount["read_only"]), (&"bind".into(), &true.into()));
            Some((text(&mount["target"]).to_owned(), by_default(text(&mount["source"]))))
        }
    };
    mounts.iter().filter_map(bind).collect()
}

/// The ports on this machine and in the container.
fn ports(service: &Value) -> Vec<(u16, u16)> {
    let port = |published: &str| {
        let parts = published.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("`{published}` is open to others"));
        let (outside, inside) = parts.split_once(':').unwrap();
        (outside.parse().unwrap(), inside.parse().unwrap())
    };
    texts(&service["ports"]).into_iter().map(port).collect()
}

pub(super) fn host(service: &Value) -> Host {
    let binds = binds(service);
    let (config_path, source) = binds.iter().find(|(_, source)| source.ends_with(".toml")).unwrap();
    let (plugins, _) = binds.iter().find(|(_, source)| source.ends_with("wasm32-wasip2/release")).unwrap();
    let variables = service["environment"].as_object().unwrap();
    Host {
        toml: read(&format!("deploy/{source}")),
        config_path: config_path.clone(),
        command: texts(&service["command"]).into_iter().map(str::to_owned).collect(),
        environment: variables.iter().map(|(name, value)| (name.clone(), by_default(text(value)))).collect(),
        writable: Some(own_tmpfs(service)),
        plugins: plugins.clone(),
        memory: bytes(text(&service["mem_limit"])),
        grace: seconds(text(&service["stop_grace_period"])),
    }
}

/// The path of the only tmpfs, which must belong to the image's user alone, and be smaller than the container's memory.
fn own_tmpfs(service: &Value) -> String {
    let [tmpfs] = texts(&service["tmpfs"])[..] else { panic!("there are several") };
    let (path, options) = tmpfs.split_once(':').expect("Docker gives a tmpfs without options to root at a restart");
    let options: BTreeMap<&str, &str> = options.split(',').map(|option| option.split_once('=').unwrap()).collect();
    let user = format!("USER {}:{}\n", options["uid"], options["gid"]);
    assert!(read("deploy/Dockerfile").contains(&user), "{user}");
    assert_eq!(options["mode"], "0700", "a folder that others may write to is not used");
    assert!(bytes(options["size"]) <= bytes(text(&service["mem_limit"])) / 8);
    path.to_owned()
}

pub(super) const HOSTS: [&str; 2] = ["larder-1", "larder-2"];

#[test]
fn up_starts_a_server_and_two_hosts_and_a_profile_the_rest() {
    let compose = compose();
    let of_profile = |wanted: &str| {
        let is_of = |service: &&str| match compose["services"][service]["profiles"].as_array() {
            Some(profiles) => profiles.iter().any(|profile| profile == wanted),
            None => wanted.is_empty(),
        };
        names(&compose["services"]).into_iter().filter(is_of).collect::<BTreeSet<_>>()
    };
    assert_eq!(of_profile(""), BTreeSet::from(["larder-1", "larder-2", "valkey"]));
    assert_eq!(of_profile("redis"), BTreeSet::from(["redis"]));
    assert_eq!(of_profile("watch"), BTreeSet::from(["grafana", "prometheus"]));
}

#[test]
fn every_service_has_a_version_a_network_and_ports_for_this_machine_only() {
    let compose = compose();
    let mut published = BTreeMap::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_version(text(&service["image"]));
        assert_eq!(texts(&service["networks"]), ["cache"], "{name}");
        for (outside, inside) in ports(service) {
            assert_eq!(published.insert(outside, (name.as_str(), inside)), None, "two have port {outside}");
        }
        for mount in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let volume = mount.split(':').next().unwrap();
            assert!(volume.starts_with("./") || names(&compose["volumes"]).contains(&volume), "{name}: {mount}");
        }
        for source in binds(service).values().filter(|source| source.starts_with("./")) {
            assert!(root().join("deploy").join(source).is_file(), "{name}: {source}");
        }
    }
    let expected = [
        (3000, ("grafana", 3000)),
        (6379, ("valkey", 6379)),
        (6380, ("redis", 6379)),
        (8080, ("larder-1", 8080)),
        (8081, ("larder-2", 8080)),
        (9091, ("prometheus", 9090)),
    ];
    assert_eq!(published, BTreeMap::from(expected));
}

#[test]
fn every_container_is_confined_and_its_log_is_bounded() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(service["cap_add"], Value::Null, "{name}");
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        // Grafana's database is on its root file system.
        assert_eq!(service["read_only"], name != "grafana", "{name}");
        assert!(bytes(text(&service["mem_limit"])) > 0, "{name}");
        assert_eq!(service["logging"]["driver"], "json-file", "{name}");
        let options = &service["logging"]["options"];
        let files: u64 = text(&options["max-file"]).parse().unwrap();
        assert!(bytes(text(&options["max-size"])) * files <= 64 << 20, "{name}: {options}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        // Without it a container that was unhealthy before its restart still is, and those that depend on it do not start.
        let check = &service["healthcheck"];
        assert!(check.is_null() || seconds(text(&check["start_period"])) >= Duration::from_secs(5), "{name}: {check}");
    }
    for name in ["valkey", "redis"] {
        let service = &compose["services"][name];
        // Without capabilities the image's root could not become its user.
        assert_eq!(service["user"], "999:999", "{name}");
        let command = texts(&service["command"]);
        let option = |option: &str| command[command.iter().position(|word| *word == option).unwrap() + 1];
        assert_eq!(
            option("--protected-mode"),
            "no",
            "{name}: it has no password, and the hosts are not on its loopback"
        );
        let limit = bytes(text(&service["mem_limit"]));
        assert!(
            limit >= 2 * bytes(option("--maxmemory").strip_suffix('b').unwrap()),
            "{name}: it copies while it saves"
        );
    }
}

#[test]
fn the_servers_evict_and_keep_their_data_through_a_restart() {
    let compose = compose();
    for (name, kind) in [("valkey", Kind::ValkeyWithIfeq), ("redis", Kind::Redis)] {
        let service = &compose["services"][name];
        assert_eq!(texts(&service["volumes"]), [format!("{name}-data:/data")]);
        let command = texts(&service["command"]);
        assert_eq!(command[0], format!("{name}-server"));
        let Some(mut server) = Server::start_with(kind, &command[1..]) else { continue };
        let mut client = server.client();
        let mut option = |option: &str| {
            let answer: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(option).query(&mut client).unwrap();
            answer[1].clone()
        };
        assert_eq!((option("maxmemory-policy"), option("maxmemory")), ("allkeys-lru".into(), (256 << 20).to_string()));
        assert_eq!(option("protected-mode"), "no");
        client.set("k", "v").unwrap();
        server.kill();
        server.restart();
        assert_eq!(server.client().get("k").unwrap().as_deref(), Some("v"), "{name}");
    }
}

#[test]
fn the_hosts_agree_with_their_configuration_and_bounds() {
    let compose = compose();
    for name in HOSTS {
        let service = &compose["services"][name];
        let host = host(service);
        host.assert_sound();
        let inside: Vec<u16> = ports(service).into_iter().map(|(_, inside)| inside).collect();
        assert_eq!(inside, [host.port()], "the metrics port is not published");
        let caches = host.config().caches;
        let places = caches.values().map(|cache| match &cache.backend {
            BackendConfig::Server(server) => server.deployment.to_string(),
            store => panic!("{store:?} is not shared"),
        });
        assert_eq!(places.collect::<Vec<_>>(), ["valkey:6379"], "{name} and the server meet");
        assert_eq!(service["depends_on"]["valkey"]["condition"], "service_healthy");
        assert_eq!(
            root().join("deploy").join(text(&service["build"]["context"])).canonicalize().unwrap(),
            root().canonicalize().unwrap()
        );
        assert!(root().join(text(&service["build"]["dockerfile"])).is_file());
        assert_understood(&host.command);
    }
}

#[tokio::test]
async fn the_hosts_run_and_share_what_one_of_them_has_rendered() {
    let compose = compose();
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let port = server.port().to_string();
    let place = [("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", port.as_str())];
    let mut one = host(&compose["services"]["larder-1"]).start(&[], &place);
    let mut two = host(&compose["services"]["larder-2"]).start(&[], &place);
    for running in [&mut one, &mut two] {
        running.serving.expect_line(&format!("metrics on http://{}/metrics", running.metrics)).await;
        assert_eq!(running.serving.get("/hello").await.body, "<h1>/hello</h1>\n");
    }
    one.serving.expect_line("pages: rendering /hello").await;
    let second = two.serving.terminate().await;
    assert_eq!((second.status, second.stdout.as_str()), (Some(0), ""), "it rendered nothing itself");

    // The check of its health asks the host itself, and fails with it.
    let test = texts(&compose["services"]["larder-1"]["healthcheck"]["test"]);
    let ["CMD", "larder", check @ ..] = &test[..] else { panic!("{test:?}") };
    let asked = Larder::new(check).config(&one.toml).env("VALKEY_HOST", "127.0.0.1").succeed();
    assert_eq!(asked.stdout, "shared: ready\n");
    one.serving.terminate().await;
    Larder::new(check).config(&one.toml).fail(1);
}

#[test]
fn prometheus_asks_every_host_and_grafana_asks_prometheus() {
    let compose = compose();
    let service = |name: &str| &compose["services"][name];
    let [prometheus] = <[Value; 1]>::try_from(yaml("deploy/prometheus.yaml")).unwrap();
    let hosts = HOSTS.map(|name| format!("{name}:{}", host(service(name)).metrics_port()));
    // The path is that of the host's unless the file names another.
    assert_eq!(names(&prometheus["scrape_configs"][0]), ["job_name", "static_configs"]);
    assert_eq!(texts(&prometheus["scrape_configs"][0]["static_configs"][0]["targets"]), hosts);
    // Where the image looks for it.
    assert_eq!(binds(service("prometheus"))["/etc/prometheus/prometheus.yml"], "./prometheus.yaml");

    let binds = binds(service("grafana"));
    let provisioned = |kind: &str| {
        let source = &binds[&format!("/etc/grafana/provisioning/{kind}/larder.yaml")];
        let [file] = <[Value; 1]>::try_from(yaml(&format!("deploy/{source}"))).unwrap();
        file
    };
    let [source] = list(&provisioned("datasources")["datasources"]).to_owned().try_into().unwrap();
    let (_, inside) = ports(service("prometheus"))[0];
    assert_eq!(
        (text(&source["type"]), text(&source["url"])),
        ("prometheus", format!("http://prometheus:{inside}").as_str())
    );
    assert_eq!(source["isDefault"], true, "the dashboard names none");
    assert_eq!(source["jsonData"]["timeInterval"], prometheus["global"]["scrape_interval"]);
    let folder = &provisioned("dashboards")["providers"][0]["options"]["path"];
    let dashboard = format!("{}/larder.json", text(folder));
    assert_eq!(binds[&dashboard], "./grafana.json");
    let variables = &service("grafana")["environment"];
    assert_eq!(variables["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"], dashboard);
}
