//! The documents are true.
//!
//! - `book`: the book has every page, and every link has a target.
//! - `command_line`: `docs/command-line.md` has the commands and options of `larder --help`.
//! - `commands`: the `larder` commands in the documents run.
//! - `interface`: `docs/interface.md` is generated from `wit/cache.wit`.
//! - `metrics`: the documents and the dashboard name metrics and labels that exist.
//! - `migrating`: the steps of `docs/migrating.md`, between real servers.
//! - `operations`: the messages and alarms in `docs/operations.md` exist.
//! - `pictures`: the pictures are what their script draws.
//! - `readmes`: the commands of the examples' READMEs print what is shown.
//! - `snippets`: every snippet is part of a compiled example, is parsed by the program, or is run.
//!
//! The tests below compare configurations, tables of keys and quoted output with the code.

mod book;
mod command_line;
mod commands;
mod interface;
mod metrics;
mod migrating;
mod operations;
mod pictures;
mod readmes;
mod snippets;

use std::collections::BTreeSet;
use std::path::Path;

use larder_host::Config;
use larder_host::cache::valkey::{COMMANDS, Need, ServerCommand};
use larder_tests::documents::{TABLES, accepted_keys, blocks, configurations, rights_after, rows};
use larder_tests::repository::read;
use larder_tests::{Kind, Larder, Server};

/// Parses a configuration with the one variable that the documents use.
fn parse(text: &str, origin: &str) -> Config {
    let environment = |name: &str| (name == "VALKEY_PASSWORD").then(|| "secret".to_owned());
    Config::parse(text, origin, Path::new(""), &environment).unwrap()
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    let configurations = configurations();
    for (document, block) in &configurations {
        parse(block, document);
    }
    for document in ["README.md", "docs/caching.md", "docs/configuration.md", "docs/servers.md", "docs/serving.md"] {
        assert!(configurations.iter().any(|(found, _)| found == document), "{document} has no configuration");
    }
    parse(&read("examples/two-caches/larder.toml"), "two-caches");
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
fn the_durations_of_get_or_set_have_the_defaults_of_the_code() {
    let table = "[caches.c]\ntype = \"valkey\"";
    let rows = rows("docs/leases.md", "## Choosing `lease` and `wait`");
    assert_eq!(rows.len(), 3);
    for (key, default) in rows {
        assert_eq!(parse(&format!("{table}\n{key} = {default}\n"), "with"), parse(table, "without"), "{key}");
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
    // The options in comments are valid as well, without alternatives to each other, and with TLS for its options.
    let by_keys = ["url", "cluster", "sentinel", "password_file"];
    let by_url = ["cluster", "sentinel", "host", "port", "db", "username", "password", "password_file", "tls"];
    let by_cluster = ["url", "sentinel", "host", "port", "password_file", "near"];
    let by_sentinel = ["url", "cluster", "host", "port", "password_file"];
    for left_out in [&by_keys[..], &by_url, &by_cluster, &by_sentinel] {
        let uncommented = |line: &str| {
            let option = line.strip_prefix('#').filter(|option| !option.starts_with(' ')).unwrap_or(line);
            let is_left_out = left_out.iter().any(|key| option.starts_with(&format!("{key} = ")));
            if is_left_out { String::new() } else { option.replace("tls = false", "tls = true") + "\n" }
        };
        // The first line is for editors.
        let lines = text.lines().filter(|line| !line.starts_with("#:"));
        parse(&lines.map(uncommented).collect::<String>(), "deploy/larder.toml, all of it");
    }
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
    let readme = blocks(&read("README.md"), "rust");
    assert!(readme.iter().any(|block| block == body), "README.md does not show examples/hello-cache:\n{body}");
}

#[test]
fn the_plugin_in_the_serving_guide_is_an_example_that_runs() {
    let plugin = read("examples/http-pages/src/main.rs");
    let body = plugin.split_once("\n\n").unwrap().1;
    let guide = blocks(&read("docs/serving.md"), "rust");
    assert_eq!(guide.first().map(String::as_str), Some(body));
}

/// The rules of the access list that these caches need, of the list in the code.
fn rules(needs: &[Need]) -> BTreeSet<String> {
    COMMANDS.iter().filter(|command| needs.contains(&command.need)).map(ServerCommand::rule).collect()
}

#[test]
fn the_rights_in_the_documents_are_the_commands_of_the_list() {
    let of_every_cache = rules(&[
        Need::Always,
        Need::Database,
        Need::Single,
        Need::Writes,
        Need::Scripts,
        Need::Increment,
        Need::Tracking,
    ]);
    let of_cluster = rules(&[Need::Cluster]);
    let guide = |words: &str| rights_after(words).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(guide("A user with restricted rights (ACL) needs"), of_every_cache);
    assert_eq!(guide("rights also needs"), of_cluster);
    assert_eq!(guide("A user of the sentinels with restricted rights needs"), rules(&[Need::Sentinel]));

    let operations = read("docs/operations.md");
    let allowed = |text: &str| {
        let words = text.split([' ', '`', '\n']).filter(|word| word.starts_with('+'));
        words.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let line = blocks(&operations, "text").into_iter().find(|block| block.starts_with("ACL SETUSER ")).unwrap();
    assert_eq!(allowed(&line), of_every_cache);
    let on_a_cluster = operations.split_once("On a cluster, add `").unwrap().1.split_once('`').unwrap().0;
    assert_eq!(allowed(on_a_cluster), of_cluster);
}

/// `larder check` says that the user of this line lacks nothing.
#[test]
fn the_line_in_the_operations_guide_creates_a_user_that_lacks_nothing() {
    let line = blocks(&read("docs/operations.md"), "text").into_iter().find(|block| block.starts_with("ACL SETUSER "));
    let line = line.unwrap().replace("PASSWORD", "s3cret");
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let words: Vec<&str> = line.split_whitespace().collect();
        redis::cmd(words[0]).arg(&words[1..]).exec(&mut server.client()).unwrap();
        let config = server.cache("c") + "username = \"larder\"\npassword = \"s3cret\"\ndb = 1\n";
        let check = Larder::new(["check"]).config(&config).succeed();
        assert!(check.stdout.contains(" yes ") && check.stdout.contains("15 of 15"), "{}", check.stdout);
    }
}

/// The user has the rights that the guide names, and no others.
#[test]
fn the_rights_that_the_guide_names_are_enough() {
    let rights = rights_after("A user with restricted rights (ACL) needs");
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

/// The file of a test that `SECURITY.md` names, and the test in it.
fn named_test(span: &str) -> Option<(String, Option<&str>)> {
    let (file, test) = span.split_once("::").map_or((span, None), |(file, test)| (file, Some(test)));
    let is_file = file.contains('/') && file.ends_with(".rs");
    let is_from_root = file.starts_with("host/") || file.starts_with("tests/");
    is_file.then(|| (if is_from_root { file.to_owned() } else { format!("tests/behaviour/{file}") }, test))
}

#[test]
fn each_limit_of_the_security_page_names_tests_that_exist() {
    let page = read("SECURITY.md");
    let spans = |text: &'static str| text.split('`').skip(1).step_by(2).filter_map(named_test).collect::<Vec<_>>();
    let page: &'static str = page.leak();
    for (file, test) in spans(page) {
        let text = read(&file);
        assert!(text.contains("#[test]") || text.contains("#[tokio::test"), "{file} has no tests");
        if let Some(test) = test {
            assert!(text.contains(&format!("fn {test}(")), "{file} has no test `{test}`");
        }
    }
    let table = page.split_once("| resource | limit | tests |\n").unwrap().1.split_once("\n\n").unwrap().0;
    for row in table.lines().skip(1) {
        assert!(!spans(row).is_empty(), "no test: {row}");
    }
    assert!(table.lines().count() > 20, "{table}");
}
