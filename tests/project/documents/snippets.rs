//! Every snippet is part of a file that is compiled or run, is parsed by the program, or is run itself.

// Decision: docs/decisions/0050-snippets-are-copies-of-examples-that-run.md

use std::collections::BTreeSet;
use std::path::PathBuf;

use larder_tests::documents::{Block, blocks, code_and_text, documents, is_manifest, spans};
use larder_tests::repository::{files, read, root};

use super::migrating::GUIDED;
use super::{commands, readmes};

/// The commands that a script of this repository runs: the first words of the command, the script, and its words.
const RUN_BY_SCRIPTS: [(&str, &str, &str); 8] = [
    ("rustup target add wasm32-wasip2", "Makefile", "rustup target add $(WASM_TARGET)"),
    ("cargo build --release --target wasm32-wasip2", "Makefile", "build --locked --release --target $(WASM_TARGET)"),
    ("cargo build", "Makefile", "$(CARGO) build --locked"),
    // `larder new` prints these, and `tests/build-templates.sh` runs what it prints.
    ("cd hello", "host/cli/src/commands/new.rs", "cd {name}"),
    ("cargo test", "host/cli/src/commands/new.rs", "\"cargo test\""),
    ("python3 -m venv target/languages/venv", "examples/build-languages.sh", "python3 -m venv"),
    ("target/languages/venv/bin/pip install", "examples/build-languages.sh", "/bin/pip"),
    ("npm ci --prefix target/languages/npm", "examples/build-languages.sh", "npm ci --prefix"),
];

/// The commands that a test reads from the document and runs: the first words of the command, and the test.
const RUN_BY_TESTS: [(&str, fn()); 6] = [
    ("target/debug/larder serve --config examples/http-json/larder.toml", readmes::the_readme_of_http_json_is_true),
    ("examples/http-json/load.sh", readmes::the_readme_of_http_json_is_true),
    ("target/languages/venv/bin/componentize-py", readmes::the_readme_of_python_is_true),
    ("target/languages/npm/node_modules/.bin/componentize-qjs", readmes::the_readme_of_javascript_is_true),
    (
        "valkey-cli -h valkey.example.com GET app:migration:probe",
        commands::the_probe_of_the_migration_guide_prints_the_same_bytes_twice,
    ),
    ("export VALKEY_HOST=", commands::the_line_in_the_migration_guide_gives_a_valkey_cache_its_address),
];

/// The documents whose console sessions a test replays, and the test.
const REPLAYED: [(&str, fn()); 3] = [
    ("examples/python/README.md", readmes::the_readme_of_python_is_true),
    ("examples/javascript/README.md", readmes::the_readme_of_javascript_is_true),
    ("examples/http-json/README.md", readmes::the_readme_of_http_json_is_true),
];

#[test]
fn every_snippet_is_compiled_parsed_or_run() {
    let rust = files(&["examples", "guest-sdk", "host"], "rs");
    let python = files(&["examples"], "py");
    let javascript = files(&["examples"], "js");
    let mut languages = BTreeSet::new();
    for document in documents() {
        let (blocks, _) = code_and_text(&read(&document));
        for block in &blocks {
            let place = format!("{document}:\n{}", block.text);
            match block.language.as_str() {
                "rust" => assert!(is_part_of(block, &rust), "no example has this of {place}"),
                "python" => assert!(is_part_of(block, &python), "no example has this of {place}"),
                "js" | "javascript" => assert!(is_part_of(block, &javascript), "no example has this of {place}"),
                "toml" if is_manifest(&block.text) => assert_manifest_is_ours(&block.text, &place),
                // Parsed by `every_configuration_in_the_documents_is_valid`.
                "toml" => {}
                "sh" => assert_commands_run(&block.text, &place),
                "console" => {
                    assert!(REPLAYED.iter().any(|(console, _)| *console == document), "no test replays {place}");
                }
                // Output, a formula or a drawing.
                "text" => {}
                // The page is generated.
                "wit" => assert_eq!(document, "docs/interface.md"),
                other => panic!("no test for `{other}` of {place}"),
            }
            languages.insert(block.language.clone());
        }
    }
    let expected = ["console", "js", "python", "rust", "sh", "text", "toml", "wit"];
    assert_eq!(languages, expected.map(str::to_owned).into());
    let scripts: String = documents().iter().flat_map(|document| blocks(&read(document), "sh")).collect();
    let run_elsewhere = RUN_BY_SCRIPTS.map(|(beginning, ..)| beginning).into_iter();
    for beginning in run_elsewhere.chain(RUN_BY_TESTS.map(|(beginning, _)| beginning)) {
        assert!(scripts.contains(beginning), "no document has `{beginning}`");
    }
}

/// Whether a file has the lines of the block, with any indentation.
fn is_part_of(block: &Block, files: &[(PathBuf, String)]) -> bool {
    let trimmed = |text: &str| text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let wanted = format!("\n{}\n", trimmed(&block.text));
    files.iter().any(|(_, text)| format!("\n{}\n", trimmed(text)).contains(&wanted))
}

/// The dependencies in a manifest have the versions of this workspace, and its paths lead to our crates.
fn assert_manifest_is_ours(manifest: &str, place: &str) {
    let manifest: toml::Table = manifest.parse().unwrap();
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let workspace = &workspace["workspace"]["dependencies"];
    let version = |entry: &toml::Value| {
        let version = entry.as_str().or_else(|| entry.get("version")?.as_str());
        version.map(str::to_owned)
    };
    for (name, entry) in manifest["dependencies"].as_table().unwrap() {
        let ours =
            version(workspace.get(name).unwrap_or_else(|| panic!("the workspace does not use `{name}`, in {place}")));
        if let Some(path) = entry.get("path") {
            let folder = path.as_str().unwrap().strip_prefix("../larder/").unwrap();
            let package: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().unwrap();
            assert_eq!(package["package"]["name"].as_str(), Some(name.as_str()), "{place}");
        } else {
            let (ours, shown) = (ours.unwrap(), version(entry).unwrap());
            assert!(ours.starts_with(&shown), "`{name}` is {ours} here, and {shown} in {place}");
        }
    }
}

fn assert_commands_run(script: &str, place: &str) {
    // The tests of the migration guide run it.
    if GUIDED.iter().any(|beginning| script.starts_with(beginning)) {
        return;
    }
    let script = script.replace("\\\n", " ");
    for command in script.lines().flat_map(|line| line.split(" && ")).map(str::trim) {
        if RUN_BY_TESTS.iter().any(|(beginning, _)| command.starts_with(beginning)) {
            continue;
        }
        let script = RUN_BY_SCRIPTS.iter().find(|(beginning, ..)| command.starts_with(beginning));
        let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
        match (words.as_slice(), script) {
            (_, Some((_, file, what))) => assert!(read(file).contains(what), "`{what}` is not in {file}: {place}"),
            (["make", target, ..], _) => {
                assert!(read("Makefile").contains(&format!("\n{target}:")), "no target `{target}`: {place}");
            }
            (["mkdir", ..], _) => {}
            (["cp", from @ .., _], _) => {
                for file in from.iter().filter(|file| !file.contains('*')) {
                    assert!(root().join(file).exists(), "there is no `{file}`: {place}");
                }
            }
            _ => assert!(commands::is_run(command), "no test runs `{command}` of {place}"),
        }
    }
}

/// The table shows the calls of Emmett, and the same calls here, which the example runs.
#[test]
fn every_call_in_the_table_of_emmett_is_one_of_the_example() {
    let guide = read("docs/migrating.md");
    let table = guide.split_once("| Emmett | a plugin in Rust |\n").unwrap().1.split("\n\n").next().unwrap();
    let example = read("examples/guide/src/bin/from_emmett.rs");
    assert!(table.contains("`cache.get_or_set(") && table.contains("`valkey.clear_all()?`"), "{table}");
    for row in table.lines().skip(1) {
        let (_, ours) = row.rsplit_once(" | ").unwrap();
        let call = ours.trim_matches([' ', '|', '`']).replace("\\|", "|");
        assert!(example.contains(&call), "the example has no `{call}`");
    }
}

/// Under the names in each language.
#[test]
fn every_call_in_the_table_of_languages_exists() {
    let page = read("docs/plugins.md");
    let table = page.split_once("| the interface | Rust | Python | JavaScript |\n").unwrap().1;
    let sources = [
        ("wit/cache.wit", "{}: func("),
        ("guest-sdk/src/cache.rs guest-sdk/src/refresh.rs", "pub fn {}"),
        ("examples/python/larder_cache.py", "def {}("),
        ("examples/javascript/larder-cache.js", "{}("),
    ];
    for row in table.split("\n\n").next().unwrap().lines().skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        for (cell, (file, form)) in cells.iter().zip(sources) {
            for name in spans(cell) {
                let name = name.trim_start_matches("Cache::");
                let source: String = file.split(' ').map(read).collect();
                let source =
                    source.replace("export const open = (", "open(").replace("openDefault = (", "openDefault(");
                let source = source.replace("pub async fn", "pub fn");
                assert!(source.contains(&form.replace("{}", name)), "{file} has no `{name}`");
            }
        }
    }
}
