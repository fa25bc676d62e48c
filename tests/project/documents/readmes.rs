//! The READMEs of examples: their commands run, and print what is shown.

use std::process::Command;

use larder_tests::repository::{read, root};
use larder_tests::{Kind, Larder, ServeProcess, Server, free_port, guest, language_plugin};

/// The command that builds a plugin in Python or JavaScript, and the calls of it.
fn assert_is_true(name: &str) {
    let Some(plugin) = language_plugin(name) else { return };
    let readme = read(&format!("examples/{name}/README.md")).replace("\\\n", " ");
    let folder = tempfile::TempDir::new().unwrap();
    let built = folder.path().join("plugin.wasm");
    let build = readme.lines().find(|line| line.contains("componentize-") && line.contains("--output")).unwrap();
    let build = build.replace(&format!("target/languages/{name}.wasm"), built.to_str().unwrap());
    let output = Command::new("sh").args(["-c", &build]).current_dir(root()).output().unwrap();
    assert!(output.status.success() && built.exists(), "{build}: {output:#?}");

    let console = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let calls: Vec<_> = console.split("$ target/debug/larder run --invoke '").skip(1).collect();
    assert!(!calls.is_empty(), "{name}");
    for shown in calls {
        let (called, printed) = shown.split_once(&format!("' target/languages/{name}.wasm\n")).unwrap();
        let run = Larder::new(["run", "--invoke", called]).config("[caches.ram]\ntype = \"ram\"\n").arg(&plugin);
        assert_eq!(run.finish().stdout, printed, "{name}: {called}");
    }
}

#[test]
pub(super) fn the_readme_of_python_is_true() {
    assert_is_true("python");
}

#[test]
pub(super) fn the_readme_of_javascript_is_true() {
    assert_is_true("javascript");
}

/// `http-json`, with the files of its folder: two processes ask their slow service once, and answer what is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn the_readme_of_http_json_is_true() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let example = root().join("examples/http-json");
    let service = format!("127.0.0.1:{}", free_port());
    let config = read("examples/http-json/larder.toml");
    let plugins = guest("http-json").parent().unwrap().display().to_string();
    let config = config.replace("127.0.0.1:8080", &service).replace("../../target/wasm32-wasip2/release", &plugins);
    let start = |addr: &str| {
        let larder = Larder::new(["serve", "--addr", addr]).config(&config);
        let port = server.port().to_string();
        ServeProcess::start_with(larder.env("VALKEY_HOST", "127.0.0.1").env("VALKEY_PORT", port))
    };
    let (one, two) = (start(&service), start("127.0.0.1:0"));
    let hosts = [one.address().to_string(), two.address().to_string()];
    let output = Command::new(example.join("load.sh")).args(hosts).env("ROUNDS", "10").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.starts_with("400 answers with status 200\nhalf of them within "), "{stdout}");
    let readme = read("examples/http-json/README.md");
    let shown = "$ curl http://127.0.0.1:8081/primes/2000000\n";
    let (answer, _) = readme.split_once(shown).unwrap().1.split_once('\n').unwrap();
    assert_eq!(two.get("/primes/2000000").await.body.trim_end(), answer);
    let printed = one.terminate().await.stdout + &two.terminate().await.stdout;
    assert_eq!(printed.matches("service: counting primes below 200").count(), 21, "{printed}");
    assert_eq!(printed.lines().count(), 21, "{printed}");
}
