//! The documents are true: their configurations are valid, their defaults are the code's.

mod book;
mod commands;
mod interface;
mod operations;
mod snippets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use larder_host::Config;
use larder_tests::{Kind, Larder, Server};

use crate::architecture::sources;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// All documents of the project, by their path from its root.
pub(crate) fn documents() -> Vec<String> {
    let folders = ["", "docs", "host/cache", "host/runtime", "host/cli", "guest-sdk"].into_iter().map(str::to_owned);
    let examples = std::fs::read_dir(root().join("examples")).unwrap();
    let examples = examples.map(|entry| format!("examples/{}", entry.unwrap().file_name().to_str().unwrap()));
    let mut documents = Vec::new();
    for folder in folders.chain(["examples".to_owned()]).chain(examples) {
        for entry in std::fs::read_dir(root().join(&folder)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                documents.push(format!("{folder}/{name}").trim_start_matches('/').to_owned());
            }
        }
    }
    documents.sort();
    assert!(documents.len() > 20, "{documents:?}");
    documents
}

/// A fenced block.
struct Block {
    language: String,
    /// Without the indentation of a list that it may stand in.
    text: String,
}

/// The fenced blocks of a document, and what stands around them.
fn code_and_text(document: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut text) = (Vec::new(), String::new());
    let mut open: Option<(usize, Block)> = None;
    for line in document.lines() {
        let trimmed = line.trim_start();
        match &mut open {
            None => match trimmed.strip_prefix("```") {
                Some(language) => {
                    let block = Block { language: language.to_owned(), text: String::new() };
                    open = Some((line.len() - trimmed.len(), block));
                }
                None => text = text + line + "\n",
            },
            Some(_) if trimmed == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    (blocks, text)
}

/// The contents of all fenced blocks of one language.
pub(crate) fn blocks(document: &str, language: &str) -> Vec<String> {
    let (blocks, _) = code_and_text(document);
    blocks.into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

/// Parses a configuration with the one variable that the documents use.
fn parse(text: &str, origin: &str) -> Config {
    let environment = |name: &str| (name == "VALKEY_PASSWORD").then(|| "secret".to_owned());
    Config::parse(text, origin, Path::new(""), &environment).unwrap()
}

/// All configurations in the documents, each with the document.
pub(crate) fn configurations() -> Vec<(String, String)> {
    let mut configurations = Vec::new();
    for document in documents() {
        let blocks = blocks(&read(&document), "toml").into_iter().filter(|block| !snippets::is_manifest(block));
        configurations.extend(blocks.map(|block| (document.clone(), block)));
    }
    assert!(configurations.len() >= 20, "only {} were found", configurations.len());
    configurations
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    for (document, block) in configurations() {
        parse(&block, &document);
    }
    parse(&read("examples/two-caches/larder.toml"), "two-caches");
}

/// The tables of keys: the document, the heading in front, and the configuration's table without any of them.
pub(crate) const TABLES: [(&str, &str, &str); 6] = [
    ("docs/caching.md", "## RAM cache", "[caches.c]\ntype = \"ram\""),
    ("docs/caching.md", "### Connection parameters", "[caches.c]\ntype = \"valkey\""),
    ("docs/caching.md", "### Connection parameters", "[caches.c]\ntype = \"redis\""),
    ("docs/configuration.md", "## Plugins", "[plugins.p]"),
    ("docs/configuration.md", "## Sandbox", "[sandbox]"),
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
    assert_eq!(blocks(&read("docs/serving.md"), "rust"), [body]);
}

/// The commands that the guide names from these words to the end of the paragraph, as rights of an access list.
pub(crate) fn rights_after(words: &str) -> Vec<String> {
    let guide = read("docs/servers.md");
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
