//! The files in `deploy/` agree with the program and with each other, and run. Images are not pulled: that needs a
//! registry.
//!
//! - `alarms`: `alarms.yaml`, in Prometheus' tool.
//! - `compose`: `compose.yaml` and what its containers receive.
//! - `dashboard`: `grafana.json` and `alarms.yaml`, in a live Prometheus.
//! - `image`: the `Dockerfile`.
//! - `kubernetes`: `kubernetes.yaml`.
//! - `unit`: the systemd unit.

mod alarms;
mod compose;
mod dashboard;
mod image;
mod kubernetes;
mod unit;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use larder_host::Config;
use larder_tests::repository::{read, root, sources};
use larder_tests::{Larder, ServeProcess, free_port, guest};
use serde_json::Value;

/// The documents of a YAML file.
fn yaml(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("`{value}` is not text"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("`{value}` is not a list"))
}

fn texts(value: &Value) -> Vec<&str> {
    list(value).iter().map(text).collect()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("`{value}` has no names")).keys().map(String::as_str).collect()
}

/// A host as one of the files has it.
struct Host {
    /// The configuration, and its path in the container.
    toml: String,
    config_path: String,
    /// The arguments of `larder`.
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    /// The folder that it alone may write to.
    writable: Option<String>,
    /// The folder of plugins.
    plugins: String,
    /// The most memory it may have, in bytes.
    memory: u64,
    /// From SIGTERM to the kill.
    grace: Duration,
}

impl Host {
    fn config(&self) -> Config {
        parse(&self.toml, &self.environment)
    }

    fn port(&self) -> u16 {
        self.config().serve.addr.port()
    }

    fn metrics_port(&self) -> u16 {
        self.config().serve.metrics_addr.expect("the host has a `metrics_addr`").port()
    }

    fn assert_sound(&self) {
        let config = self.config();
        assert_eq!(self.environment.get(Config::PATH_VARIABLE), Some(&self.config_path));
        assert_variables_are_read(&self.environment, &self.toml);
        // Otherwise it is unreachable from outside the container.
        assert!(config.serve.addr.ip().is_unspecified());
        assert!(config.serve.metrics_addr.is_some_and(|addr| addr.ip().is_unspecified()));
        let compiled = Path::new(&self.environment["LARDER_COMPILED"]);
        assert_eq!(compiled, Path::new(self.writable.as_deref().unwrap_or("off")));
        assert!(!config.routes.is_empty());
        for route in &config.routes {
            assert_eq!(route.path.parent(), Some(Path::new(&self.plugins)));
        }
        assert!(self.grace > config.serve.shutdown_timeout, "{:?}", self.grace);
        // What the host holds for a request is bounded by as much again, and a mebibyte.
        let request = 2 * config.sandbox.max_memory + (1 << 20);
        let requests = request * u64::try_from(config.serve.max_concurrent_requests).unwrap();
        assert!(requests <= self.memory / 4 * 3, "{requests} bytes for requests, of {}", self.memory);
    }

    /// Starts it as the file says, with free ports on loopback, the plugins of the build, and `changes` for the address
    /// of its server.
    fn start(&self, changes: &[(&str, &str)], variables: &[(&str, &str)]) -> Running {
        let metrics = format!("127.0.0.1:{}", free_port());
        let folder = guest("http-pages").parent().unwrap().display().to_string();
        let Config { serve, .. } = self.config();
        let own = [
            (serve.addr.to_string(), format!("127.0.0.1:{}", free_port())),
            (serve.metrics_addr.unwrap().to_string(), metrics.clone()),
            (format!("{}/", self.plugins), format!("{folder}/")),
        ];
        let own = own.iter().map(|(old, new)| (old.as_str(), new.as_str()));
        let toml = own.chain(changes.iter().copied()).fold(self.toml.clone(), |toml, (old, new)| {
            assert!(toml.contains(old), "`{old}` is not in the configuration");
            toml.replace(old, new)
        });
        let elsewhere = [Config::PATH_VARIABLE, "LARDER_COMPILED"];
        let kept = self.environment.iter().filter(|(name, _)| !elsewhere.contains(&name.as_str()));
        let larder = kept.fold(Larder::new(&self.command), |larder, (name, value)| larder.env(name, value));
        let larder = variables.iter().fold(larder, |larder, (name, value)| larder.env(name, value));
        let serving = ServeProcess::start_with(larder.config(&toml));
        Running { serving, metrics, toml }
    }
}

/// A running host.
struct Running {
    serving: ServeProcess,
    metrics: String,
    /// Its actual configuration.
    toml: String,
}

fn parse(toml: &str, environment: &BTreeMap<String, String>) -> Config {
    let environment = |name: &str| environment.get(name).cloned();
    Config::parse(toml, "configuration", Path::new(""), &environment).unwrap_or_else(|error| panic!("{error}"))
}

/// The host's own variables are in its source; each of the others changes the configuration.
fn assert_variables_are_read(environment: &BTreeMap<String, String>, toml: &str) {
    let source: String = sources("host").into_iter().map(|(_, text)| text).collect();
    for name in environment.keys() {
        let mut without = environment.clone();
        without.remove(name);
        let is_read = match name.starts_with("LARDER_") {
            true => source.contains(&format!("\"{name}\"")),
            false => parse(toml, environment) != parse(toml, &without),
        };
        assert!(is_read, "`{name}` has no effect");
    }
}

/// Asserts that the program accepts these arguments: with `--help` after them it prints help, or names an unknown one.
fn assert_understood<S: AsRef<str>>(words: &[S]) {
    let run = Larder::new(words.iter().map(AsRef::as_ref)).arg("--help").finish();
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(run.stdout.contains(&format!("Usage: larder {}", words[0].as_ref())), "{run:#?}");
}

/// A number of bytes as Docker and Kubernetes write it.
fn bytes(written: &str) -> u64 {
    let (number, unit) = written.split_at(written.find(|letter: char| !letter.is_ascii_digit()).unwrap());
    let shift = match unit {
        "m" | "Mi" => 20,
        "g" | "Gi" => 30,
        _ => panic!("`{written}` has another unit"),
    };
    number.parse::<u64>().unwrap() << shift
}

fn seconds(written: &str) -> Duration {
    Duration::from_secs(written.strip_suffix('s').unwrap_or(written).parse().unwrap())
}

/// Asserts that the reference of an image has a version.
fn assert_version(image: &str) {
    let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("`{image}` has no tag"));
    // A distroless image has its version in its name: that of Debian.
    let version = if name.starts_with("gcr.io/distroless/") { name } else { tag };
    assert!(
        tag != "latest" && version.contains(|letter: char| letter.is_ascii_digit()),
        "`{image}` has no fixed version"
    );
    if name.rsplit('/').next() == Some("larder") {
        assert_eq!(tag, env!("CARGO_PKG_VERSION"), "`{image}` is another Larder");
    }
}

#[test]
fn no_file_has_a_secret() {
    for entry in std::fs::read_dir(root().join("deploy")).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read_to_string(&path).unwrap();
        assert!(!file.contains("kind: Secret"), "{}", path.display());
        for line in file.lines() {
            let lower = line.to_lowercase();
            for word in ["password =", "password: ", "secret =", "secret: ", "token =", "token: "] {
                let Some((_, value)) = lower.split_once(word) else { continue };
                let value = value.trim_start_matches([' ', '"']);
                assert!(value == "false" || value.starts_with("${"), "{}: {line}", path.display());
            }
            if let Some((user, _)) = line.split_once("://").and_then(|(_, rest)| rest.split_once('@')) {
                assert!(user.contains("${"), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn each_configuration_names_its_schema_for_editors_and_how_to_write_it() {
    let files = std::fs::read_dir(root().join("deploy")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("#:schema ./larder.schema.json\n"), "{}", file.display());
        assert!(text.contains("`larder schema > larder.schema.json`"), "{}", file.display());
    }
}
