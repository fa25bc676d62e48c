//! The commands of the documents run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use larder_tests::documents::{blocks, documents};
use larder_tests::repository::{read, root};
use larder_tests::{Kind, Larder, Server, guest, program};

/// Whether a command is one that [`every_larder_command_in_the_documents_is_accepted`] runs: a program of this
/// repository, with or without variables before it.
pub(super) fn is_run(command: &str) -> bool {
    let mut words = command.split(' ').skip_while(|word| word.contains('=') && !word.starts_with('-'));
    let program = words.next().unwrap_or_default();
    ["larder", "embed-host", "embed-runtime"].contains(&program.trim_start_matches("target/debug/"))
}

#[test]
fn every_larder_command_in_the_documents_is_accepted() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut shown = BTreeSet::new();
    for document in documents() {
        for line in blocks(&read(&document), "sh").iter().flat_map(|block| block.lines()) {
            if !is_run(line) || line.contains("examples/http-json/") {
                continue;
            }
            // The caches are on the test's server, and the plugin is one that is built.
            let config = format!("default = \"valkey\"\n{}{}", server.cache("valkey"), server.cache("shared"));
            let config = config + "prefix = \"app:\"\n";
            let line = line.replace("target/debug/", "").replace("examples/two-caches/", "");
            let line = line.replace("../larder/", &format!("{}/", root().display()));
            let line = replace_plugins(&line);
            let folder = tempfile::TempDir::new().unwrap();
            for file in ["larder.toml", "redis.toml"] {
                std::fs::write(folder.path().join(file), &config).unwrap();
            }
            std::fs::write(folder.path().join("home.html"), "<p>home</p>").unwrap();
            let output = sh(&line).current_dir(folder.path()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            // The status is 1 for a miss or a server that does not exist, and 2 for a command that is not accepted.
            assert!(matches!(output.status.code(), Some(0 | 1)), "{document}: {line}: {stderr}");
            shown.extend(line.split(' ').map(str::to_owned));
        }
    }
    let help = Larder::new(["--help"]).succeed().stdout;
    let subcommands = help.split_once("Commands:\n").expect("the help lists the subcommands").1.lines();
    // A line that goes on with the one before is indented further.
    let is_name = |line: &&str| !line.starts_with("   ");
    for line in subcommands.take_while(|line| line.starts_with("  ")).filter(is_name) {
        let name = line.split_whitespace().next().unwrap();
        assert!(name == "help" || shown.contains(name), "no document shows `larder {name}`");
    }
}

/// A shell with the programs of this build in its path.
fn sh(script: &str) -> Command {
    let path = format!("{}:{}", program().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("PATH", path);
    command
}

/// Replaces each `*.wasm` in a command by a plugin that is built.
fn replace_plugins(line: &str) -> String {
    let is_plugin = |word: &str| word.ends_with(".wasm");
    let real = |word: &str| match Path::new(word).file_stem().and_then(|stem| stem.to_str()) {
        Some("plugin" | "hello") => guest("memoise"),
        Some(name) => guest(name),
        None => panic!("`{word}` has no name"),
    };
    let words = line.split(' ').map(|word| match word {
        word if is_plugin(word) => real(word).display().to_string(),
        word => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
pub(super) fn the_line_in_the_migration_guide_gives_a_valkey_cache_its_address() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let guide = blocks(&read("docs/migrating.md"), "sh");
    let line = guide.iter().find(|block| block.starts_with("export VALKEY_HOST=")).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("larder.toml"), "[caches.shared]\ntype = \"valkey\"\n").unwrap();
    let mut check = sh(&format!("{line}larder check"));
    check.env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", server.port().to_string());
    let output = check.current_dir(folder.path()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains(&format!("127.0.0.1:{}", server.port())), "{output:?}");
}

#[test]
pub(super) fn the_probe_of_the_migration_guide_prints_the_same_bytes_twice() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let guide = blocks(&read("docs/migrating.md"), "sh");
    let script = guide.iter().find(|block| block.contains("GET app:migration:probe")).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("larder.toml"), server.cache("shared") + "prefix = \"app:\"\n").unwrap();
    let script = script.replace("-h valkey.example.com", &format!("-p {}", server.port()));
    let output = sh(&script).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().replace('\n', ""), "hellohello");
}
