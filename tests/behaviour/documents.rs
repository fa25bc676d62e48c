//! The documents are true: their configurations are valid, their defaults are the code's, their commands run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_host::Config;
use larder_tests::{Kind, Larder, Server, guest, program};
use redis::Commands;

use crate::architecture::sources;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

pub(crate) const DOCUMENTS: [&str; 7] = [
    "README.md",
    "docs/caching.md",
    "docs/metrics.md",
    "docs/migrating.md",
    "docs/production.md",
    "docs/serving.md",
    "examples/README.md",
];

/// The contents of all fenced blocks of one language, without the indentation of a list they may stand in.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        match &mut open {
            None if trimmed.strip_prefix("```") == Some(language) => {
                open = Some((line.len() - trimmed.len(), String::new()));
            }
            None => {}
            Some(_) if trimmed == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
        }
    }
    blocks
}

/// Parses a configuration with the one variable that the documents use.
fn parse(text: &str, origin: &str) -> Config {
    let environment = |name: &str| (name == "VALKEY_PASSWORD").then(|| "secret".to_owned());
    Config::parse(text, origin, Path::new(""), &environment).unwrap()
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    let mut count = 0;
    for document in DOCUMENTS {
        for block in blocks(&read(document), "toml") {
            parse(&block, document);
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} blocks were found");
    parse(&read("examples/two-caches/larder.toml"), "two-caches");
}

/// The tables of keys: the document, the heading in front, and the configuration's table without any of them.
pub(crate) const TABLES: [(&str, &str, &str); 6] = [
    ("docs/caching.md", "## RAM cache", "[caches.c]\ntype = \"ram\""),
    ("docs/caching.md", "### Connection parameters", "[caches.c]\ntype = \"valkey\""),
    ("docs/caching.md", "### Connection parameters", "[caches.c]\ntype = \"redis\""),
    ("docs/caching.md", "## Plugins and sandbox", "[plugins.p]"),
    ("docs/caching.md", "`[sandbox]` bounds each plugin instance:", "[sandbox]"),
    ("docs/serving.md", "## Configuration", "[serve]"),
];

/// The rows of the first table of keys behind a heading: key and default.
pub(crate) fn rows(document: &str, heading: &str) -> Vec<(String, String)> {
    let text = read(document);
    let section = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`")).1;
    let table = section.lines().skip_while(|line| !line.starts_with("| key | default |")).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect()
}

/// The keys that a table accepts, as its refusal of another one lists them.
pub(crate) fn accepted_keys(table: &str) -> BTreeSet<String> {
    let error = Config::from_toml(&format!("{table}\nno_such_key = 1")).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected ").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Each default written out makes no difference, and no key is missing.
fn assert_table_is_true(document: &str, heading: &str, table: &str) {
    let without = parse(table, "without");
    let rows = rows(document, heading);
    for (key, default) in rows.iter().filter(|(_, default)| default != "none") {
        let with = parse(&format!("{table}\n{key} = {default}\n"), "with");
        assert_eq!(with, without, "the default of `{key}` in {document} is not `{default}`");
    }
    let mut documented: BTreeSet<String> = rows.into_iter().map(|(key, _)| key).collect();
    documented.remove("type");
    assert_eq!(documented, accepted_keys(table), "under `{heading}` in {document}");
}

#[test]
fn the_tables_of_the_guide_have_the_keys_and_defaults_of_the_code() {
    for (document, heading, table) in TABLES {
        assert_table_is_true(document, heading, table);
    }
}

#[test]
fn every_bound_has_a_test_named_after_its_key() {
    let tests: String = sources("tests/behaviour").into_iter().map(|(_, text)| text).collect();
    let caches = ["[caches.c]\ntype = \"ram\"", "[caches.c]\ntype = \"valkey\""];
    let keys = caches.into_iter().chain(["[plugins.p]", "[sandbox]", "[serve]"]).flat_map(accepted_keys);
    let bounds: BTreeSet<String> = keys.filter(|key| key.starts_with("max_")).collect();
    assert!(bounds.len() > 15, "{bounds:?}");
    for bound in bounds {
        assert!(tests.contains(&format!("fn {bound}_")), "no test is named after `{bound}`");
    }
}

#[test]
fn the_deployed_configuration_states_every_key_with_its_default() {
    let text = read("deploy/larder.toml");
    let bare = "default = \"ram\"\n[caches.ram]\ntype = \"ram\"\n[caches.valkey]\ntype = \"valkey\"\n";
    assert_eq!(parse(&text, "deploy/larder.toml"), parse(bare, "bare"));
    for table in ["[caches.c]\ntype = \"ram\"", "[caches.c]\ntype = \"valkey\"", "[plugins.p]", "[sandbox]", "[serve]"]
    {
        for key in accepted_keys(table) {
            let is_stated = |line: &str| line.trim_start_matches('#').starts_with(&format!("{key} = "));
            assert!(text.lines().any(is_stated), "`{key}` is missing");
        }
    }
    // What is commented out is valid as well, less what is a second way to say the same; and what goes with TLS, with it.
    let by_keys = ["url", "cluster", "sentinel", "password_file"];
    let by_url = ["cluster", "sentinel", "host", "port", "db", "username", "password", "password_file", "tls"];
    let by_cluster = ["url", "sentinel", "host", "port", "password_file"];
    let by_sentinel = ["url", "cluster", "host", "port", "password_file"];
    for left_out in [&by_keys[..], &by_url, &by_cluster, &by_sentinel] {
        let uncommented = |line: &str| {
            let option = line.strip_prefix('#').filter(|option| !option.starts_with(' ')).unwrap_or(line);
            let is_left_out = left_out.iter().any(|key| option.starts_with(&format!("{key} = ")));
            if is_left_out { String::new() } else { option.replace("tls = false", "tls = true") + "\n" }
        };
        parse(&text.lines().map(uncommented).collect::<String>(), "deploy/larder.toml, all of it");
    }
}

#[test]
fn every_larder_command_in_the_documents_is_understood() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut count = 0;
    for document in DOCUMENTS {
        for line in blocks(&read(document), "sh").iter().flat_map(|block| block.lines()) {
            if !line.contains("larder ") || line.starts_with("cargo") || line.starts_with("docker") {
                continue;
            }
            // Whatever the document calls its caches, they are on our server, and its plugin is one of ours.
            let config = format!("default = \"valkey\"\n{}{}", server.cache("valkey"), server.cache("shared"));
            let config = config + "prefix = \"app:\"\n";
            let line = line.replace("target/debug/larder", "larder").replace("examples/two-caches/", "");
            let line = replace_plugins(&line);
            let folder = tempfile::TempDir::new().unwrap();
            for file in ["larder.toml", "redis.toml"] {
                std::fs::write(folder.path().join(file), &config).unwrap();
            }
            std::fs::write(folder.path().join("home.html"), "<p>home</p>").unwrap();
            let path = format!("{}:{}", program().parent().unwrap().display(), std::env::var("PATH").unwrap());
            let output = Command::new("sh").arg("-c").arg(&line).current_dir(folder.path()).env("PATH", path).output();
            let output = output.unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            // A miss or a server that is not there is 1; a command that is not understood is 2.
            assert!(matches!(output.status.code(), Some(0 | 1)), "{document}: {line}: {stderr}");
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} commands were found");
}

/// Puts a real plugin in the place of every `*.wasm` of a command.
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

/// A run's output with its timings taken out.
fn without_timings(text: &str) -> String {
    let strip = |line: &str| line.split(", in ").next().unwrap().to_owned() + "\n";
    text.lines().map(strip).collect()
}

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let demo = Larder::run("memoise").succeed().stdout;
    let readme = read("README.md");
    let shown = blocks(&readme, "text");
    let is_demo = |block: &String| without_timings(block).ends_with(&without_timings(&demo));
    assert!(shown.iter().any(is_demo), "README.md does not show:\n{demo}");
}

#[test]
fn the_plugin_in_the_readme_is_an_example_that_runs() {
    let plugin = read("examples/hello-cache/src/main.rs");
    let body = plugin.split_once("\n\n").unwrap().1;
    let readme = blocks(&read("README.md"), "rust,no_run");
    assert!(readme.iter().any(|block| block == body), "README.md does not show examples/hello-cache:\n{body}");
}

#[test]
fn the_plugin_in_the_serving_guide_is_an_example_that_runs() {
    let plugin = read("examples/http-pages/src/main.rs");
    let body = plugin.split_once("\n\n").unwrap().1;
    assert_eq!(blocks(&read("docs/serving.md"), "rust"), [body]);
}

#[test]
fn the_copy_loop_of_the_migration_guide_copies_values_and_durations() {
    let Some(old) = Server::start(Kind::Redis) else { return };
    let Some(new) = Server::start(Kind::Valkey) else { return };
    let (mut from, mut to) = (old.client(), new.client());
    let binary: &[u8] = b"\x00\xff\r\n";
    let () = from.set("cache:binary", binary).unwrap();
    let () = from.pset_ex("cache:short lived", "v", 100_000).unwrap();
    let () = from.set("cache:kept", "old").unwrap();
    let () = to.set("cache:kept", "new").unwrap();
    let () = from.set("other:1", "v").unwrap();

    let guide = read("docs/migrating.md");
    let script = blocks(&guide, "sh").into_iter().find(|block| block.starts_with("old=")).unwrap();
    let script = script
        .replace("-h redis.example.com", &format!("-p {}", old.port()))
        .replace("-h valkey.example.com", &format!("-p {}", new.port()));
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    assert_eq!(to.get::<_, Vec<u8>>("cache:binary").unwrap(), binary);
    assert_eq!(to.pttl::<_, i64>("cache:binary").unwrap(), -1);
    let left: i64 = to.pttl("cache:short lived").unwrap();
    assert!((1..=100_000).contains(&left), "{left} ms are left");
    assert_eq!(to.get::<_, String>("cache:kept").unwrap(), "new");
    assert!(!to.exists::<_, bool>("other:1").unwrap());
}

/// The commands that the guide names from these words to the end of the paragraph, as rights of an access list.
pub(crate) fn rights_after(words: &str) -> Vec<String> {
    let guide = read("docs/caching.md");
    let mut paragraphs = guide.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    let behind = paragraphs.find_map(|paragraph| Some(paragraph.split_once(words)?.1.to_owned())).unwrap();
    let named = behind.split('`').skip(1).step_by(2).filter(|word| *word != "db");
    named.map(|command| format!("+{}", command.to_lowercase().replace(' ', "|"))).collect()
}

/// The user has the rights that the guide names, and no others.
#[test]
fn the_rights_that_the_guide_names_are_enough() {
    let rights = rights_after("A user with restricted rights (ACL) needs");
    assert!(rights.len() > 10, "{rights:?}");
    let operations = [
        ("set a 1", "ok"),
        ("get a", "hit 1"),
        ("get-many a b", "hit 1 miss"),
        ("get-or-set b 2", "filled true"),
        ("get-or-set b 3", "hit 2"),
        ("clear a", "true"),
        ("clear-pattern b*", "1"),
        ("clear-all", "0"),
    ];
    for kind in Kind::ALL {
        let acl = ["--user", "worker", "on", ">s3cret", "~cache:*", "resetchannels", "-@all"];
        let acl: Vec<&str> = acl.into_iter().chain(rights.iter().map(String::as_str)).collect();
        let Some(server) = Server::start_with(kind, &acl) else { continue };
        let config = server.cache("c") + "username = \"worker\"\npassword = \"s3cret\"\ndb = 1\n";
        let run =
            operations.iter().fold(Larder::run("script").config(&config), |run, (operation, _)| run.arg(operation));
        let expected: String = operations.iter().map(|(_, answer)| format!("{answer}\n")).collect();
        assert_eq!(run.succeed().stdout, expected, "on {kind:?}");
        let check = Larder::new(["check"]).config(&config).succeed();
        assert!(check.stdout.contains("tracking"), "{}", check.stdout);
    }
}
