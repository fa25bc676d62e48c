//! Every snippet stands in a file that is compiled or run, is read by the program, or is run itself.

// Decision: docs/decisions/0050-snippets-are-copies-of-examples-that-run.md

use std::path::PathBuf;

use larder_tests::documents::{Block, blocks, code_and_text, documents, is_manifest, spans};
use larder_tests::repository::{files, read, root};

use super::migrating::GUIDED;

/// What each command of the documents' shell snippets is held by, where [`super::commands`] does not run it: a file, and
/// what stands in it.
const RUN_ELSEWHERE: [(&str, &str, &str); 14] = [
    ("rustup target add wasm32-wasip2", "Makefile", "rustup target add $(WASM_TARGET)"),
    ("cargo build --release --target wasm32-wasip2", "Makefile", "build --locked --release --target $(WASM_TARGET)"),
    ("cargo build", "Makefile", "$(CARGO) build --locked"),
    // What `larder new` prints, and `tests/build-templates.sh` runs.
    ("cd hello", "host/cli/src/commands/new.rs", "cd {name}"),
    ("cargo test", "host/cli/src/commands/new.rs", "\"cargo test\""),
    (
        "target/debug/larder serve --config examples/http-json/larder.toml",
        "tests/behaviour/sdk/examples.rs",
        "http-json",
    ),
    ("examples/http-json/load.sh", "tests/behaviour/sdk/examples.rs", "load.sh"),
    ("python3 -m venv target/languages/venv", "examples/build-languages.sh", "python3 -m venv"),
    ("target/languages/venv/bin/pip install", "examples/build-languages.sh", "/bin/pip"),
    ("target/languages/venv/bin/componentize-py", "tests/behaviour/sdk/languages.rs", "componentize-"),
    ("npm ci --prefix target/languages/npm", "examples/build-languages.sh", "npm ci --prefix"),
    ("target/languages/npm/node_modules/.bin/componentize-qjs", "tests/behaviour/sdk/languages.rs", "componentize-"),
    (
        "valkey-cli -h valkey.example.com GET app:migration:probe",
        "tests/project/documents/commands.rs",
        "GET app:migration:probe",
    ),
    ("export VALKEY_HOST=", "tests/project/documents/commands.rs", "export VALKEY_HOST="),
];

/// Whose sessions are replayed, by which test.
const CONSOLES: [(&str, &str, &str); 3] = [
    ("examples/python/README.md", "tests/behaviour/sdk/languages.rs", "the_readmes_of_python_and_javascript_are_true"),
    (
        "examples/javascript/README.md",
        "tests/behaviour/sdk/languages.rs",
        "the_readmes_of_python_and_javascript_are_true",
    ),
    ("examples/http-json/README.md", "tests/behaviour/sdk/examples.rs", "curl http://127.0.0.1:8081"),
];

#[test]
fn every_snippet_is_held_by_something_that_runs() {
    let rust = files(&["examples", "guest-sdk", "host"], "rs");
    let python = files(&["examples"], "py");
    let javascript = files(&["examples"], "js");
    let mut count = 0;
    for document in documents() {
        let (blocks, _) = code_and_text(&read(&document));
        for block in &blocks {
            let place = format!("{document}:\n{}", block.text);
            match block.language.as_str() {
                "rust" => assert!(stands_in(block, &rust), "no example has this of {place}"),
                "python" => assert!(stands_in(block, &python), "no example has this of {place}"),
                "js" | "javascript" => assert!(stands_in(block, &javascript), "no example has this of {place}"),
                "toml" if is_manifest(&block.text) => assert_manifest_is_ours(&block.text, &place),
                // Parsed by `every_configuration_in_the_documents_is_valid`.
                "toml" => {}
                "sh" => assert_commands_are_held(&block.text, &place),
                "console" => {
                    let held = CONSOLES.iter().find(|(console, ..)| *console == document);
                    let (_, file, what) = held.unwrap_or_else(|| panic!("nobody replays {place}"));
                    assert!(read(file).contains(what), "{file} does not replay {place}");
                }
                // What something prints, a formula, a drawing.
                "text" => {}
                // The page is generated.
                "wit" => assert_eq!(document, "docs/interface.md"),
                other => panic!("nobody holds `{other}` of {place}"),
            }
            count += 1;
        }
    }
    assert!(count > 80, "only {count} snippets were found");
    let scripts: String = documents().iter().flat_map(|document| blocks(&read(document), "sh")).collect();
    for (beginning, ..) in RUN_ELSEWHERE {
        assert!(scripts.contains(beginning), "no document has `{beginning}` any more");
    }
}

/// In one piece, whatever the indentation.
fn stands_in(block: &Block, files: &[(PathBuf, String)]) -> bool {
    let trimmed = |text: &str| text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let wanted = format!("\n{}\n", trimmed(&block.text));
    files.iter().any(|(_, text)| format!("\n{}\n", trimmed(text)).contains(&wanted))
}

/// What a manifest depends on has the versions of our workspace, and our crates stand where it says.
fn assert_manifest_is_ours(manifest: &str, place: &str) {
    let manifest: toml::Table = manifest.parse().unwrap();
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let workspace = &workspace["workspace"]["dependencies"];
    let version = |entry: &toml::Value| {
        let version = entry.as_str().or_else(|| entry.get("version")?.as_str());
        version.map(str::to_owned)
    };
    for (name, entry) in manifest["dependencies"].as_table().unwrap() {
        let ours = version(workspace.get(name).unwrap_or_else(|| panic!("`{name}` is not what we use, in {place}")));
        if let Some(path) = entry.get("path") {
            let folder = path.as_str().unwrap().strip_prefix("../larder/").unwrap();
            let package: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().unwrap();
            assert_eq!(package["package"]["name"].as_str(), Some(name.as_str()), "{place}");
        } else {
            let (ours, told) = (ours.unwrap(), version(entry).unwrap());
            assert!(ours.starts_with(&told), "`{name}` is {ours} here, and {told} in {place}");
        }
    }
}

fn assert_commands_are_held(script: &str, place: &str) {
    // A test of its own follows it, step by step.
    if GUIDED.iter().any(|beginning| script.starts_with(beginning)) {
        return;
    }
    let script = script.replace("\\\n", " ");
    for command in script.lines().flat_map(|line| line.split(" && ")).map(str::trim) {
        let elsewhere = RUN_ELSEWHERE.iter().find(|(beginning, ..)| command.starts_with(beginning));
        let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
        match (words.as_slice(), elsewhere) {
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
            _ => assert!(super::commands::is_run(command), "nobody runs `{command}` of {place}"),
        }
    }
}

/// The framework's calls have ours beside them, and ours run.
#[test]
fn every_call_beside_emmetts_is_one_of_the_example() {
    let guide = read("docs/migrating.md");
    let table = guide.split_once("| Emmett | a plugin in Rust |\n").unwrap().1.split("\n\n").next().unwrap();
    let example = read("examples/guide/src/bin/from_emmett.rs");
    let mut count = 0;
    for row in table.lines().skip(1) {
        let (_, ours) = row.rsplit_once(" | ").unwrap();
        let call = ours.trim_matches([' ', '|', '`']).replace("\\|", "|");
        assert!(example.contains(&call), "the example has no `{call}`");
        count += 1;
    }
    assert!(count > 10, "only {count} calls were found");
}

/// And the names of the helpers are theirs.
#[test]
fn every_call_in_the_table_of_languages_exists() {
    let page = read("docs/plugins.md");
    let table = page.split_once("| the interface | Rust | Python | JavaScript |\n").unwrap().1;
    let sources = [
        ("wit/cache.wit", "{}: func("),
        ("guest-sdk/src/cache.rs", "pub fn {}"),
        ("examples/python/larder_cache.py", "def {}("),
        ("examples/javascript/larder-cache.js", "{}("),
    ];
    for row in table.split("\n\n").next().unwrap().lines().skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        for (cell, (file, form)) in cells.iter().zip(sources) {
            for name in spans(cell) {
                let name = name.trim_start_matches("Cache::");
                let source =
                    read(file).replace("export const open = (", "open(").replace("openDefault = (", "openDefault(");
                let source = source.replace("pub async fn", "pub fn");
                assert!(source.contains(&form.replace("{}", name)), "{file} has no `{name}`");
            }
        }
    }
}
