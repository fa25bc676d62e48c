//! ARCHITECTURE.md and docs/decisions: the paths exist, the decisions are complete, and the invariants that can be read
//! from sources hold. Those about dependencies are rules in `deny.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use larder_tests::repository::{self, read, root, sources};

/// The files of a module: its folder, and the file of the same name if there is one.
fn module(path: &str) -> Vec<(PathBuf, String)> {
    let file = format!("{path}.rs");
    let mut sources = sources(path);
    if root().join(&file).exists() {
        sources.extend(repository::sources(&file));
    }
    sources
}

/// No line of code, comments aside, contains one of the words.
fn assert_absent(sources: &[(PathBuf, String)], words: &[&str]) {
    for (path, text) in sources {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{} has `{word}`: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_redis_client_is_used_in_one_folder() {
    let is_allowed =
        |path: &Path| path.components().any(|part| part.as_os_str() == "valkey") || path.ends_with("valkey.rs");
    let (inside, outside): (Vec<_>, Vec<_>) =
        sources("host/cache/src").into_iter().partition(|(path, _)| is_allowed(path));
    assert!(inside.iter().any(|(_, text)| text.contains("use redis::")));
    assert_absent(&outside, &["redis::"]);
}

#[test]
fn the_linker_has_no_backend_and_no_configuration() {
    assert_absent(&module("host/runtime/src/linker"), &["crate::config", "RamBackend", "ValkeyBackend"]);
}

#[test]
fn the_configuration_opens_no_connection() {
    assert_absent(&module("host/runtime/src/config"), &["tokio", "std::net::Tcp", "wasmtime", "connect("]);
}

#[test]
fn one_file_constructs_backends() {
    let constructors = ["RamBackend::new(", "ValkeyBackend::connect("];
    let is_allowed = |path: &Path| path.ends_with("host/runtime/src/caches.rs");
    let hosts = ["host/runtime/src", "host/cli/src"].into_iter().flat_map(sources);
    let (allowed, others): (Vec<_>, Vec<_>) = hosts.partition(|(path, _)| is_allowed(path));
    for constructor in constructors {
        assert!(allowed.iter().any(|(_, text)| text.contains(constructor)), "nothing calls `{constructor}`");
    }
    assert_absent(&others, &constructors);
}

/// The code spans of a page that are paths.
fn paths(page: &str) -> Vec<&str> {
    let spans = page.split('`').skip(1).step_by(2);
    spans.filter(|span| span.contains('/') && !span.contains([' ', '\n', ':', '<'])).collect()
}

#[test]
fn every_path_in_the_architecture_exists() {
    let page = read("ARCHITECTURE.md");
    let paths = paths(&page);
    assert!(paths.contains(&"host/cache/src/valkey/"), "{paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "ARCHITECTURE.md names `{path}`");
    }
}

/// The folders of the project that a map must name.
fn folders() -> Vec<String> {
    let mut folders = Vec::new();
    for parent in ["", "host", "host/cache/src", "host/cache/src/valkey", "host/runtime/src"] {
        for entry in std::fs::read_dir(root().join(parent)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_ours = !(name.starts_with('.') || name == "target" || name == "host");
            if is_ours && entry.path().is_dir() {
                folders.push(format!("{parent}/{name}/").trim_start_matches('/').to_owned());
            }
        }
    }
    folders
}

#[test]
fn the_map_has_every_folder_and_an_invariant_for_each() {
    let page = read("ARCHITECTURE.md");
    let map = page.split_once("\n## Folders\n").unwrap().1;
    for folder in folders() {
        assert!(map.contains(&format!("`{folder}")), "the map has no `{folder}`");
    }
    let (mut entries, mut current) = (Vec::new(), String::new());
    for line in map.lines() {
        if line.trim_start().starts_with("- `") {
            entries.push(std::mem::take(&mut current));
        }
        current += line;
    }
    entries.push(current);
    for entry in &entries[1..] {
        assert_eq!(entry.matches("*Invariant:*").count(), 1, "{entry}");
    }
}

/// The file names of the decisions, in their order.
fn decisions() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("docs/decisions")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "README.md").collect();
    names.sort();
    names
}

#[test]
fn every_decision_is_short_complete_numbered_and_in_the_index() {
    let index = read("docs/decisions/README.md");
    let listed: Vec<&str> = index.lines().filter(|line| line.starts_with("- ")).collect();
    let decisions = decisions();
    for (place, name) in decisions.iter().enumerate() {
        let page = read(&format!("docs/decisions/{name}"));
        let number = format!("{:04}", place + 1);
        let heading = page.lines().next().unwrap();
        let title = heading.strip_prefix(&format!("# {number}: ")).unwrap_or_else(|| panic!("{name}: {heading}"));
        let words = title.to_lowercase().replace("'s", "s");
        let words = words.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        assert_eq!(*name, format!("{number}-{}.md", words.collect::<Vec<_>>().join("-")));
        for part in ["\n\n**Context:** ", "\n\n**Decision:** ", "\n\n**Price:** "] {
            assert_eq!(page.matches(part).count(), 1, "{name}: {part}");
        }
        assert!((5..=15).contains(&page.lines().count()), "{name} has {} lines", page.lines().count());
        let entry = format!("- [{number}]({name}): {title}");
        assert_eq!(listed.iter().filter(|line| **line == entry).count(), 1, "the index has no `{entry}`");
    }
    assert_eq!(listed.len(), decisions.len());
}

/// The files that name decisions: sources, manifests, and a few files of other kinds.
fn explained() -> Vec<String> {
    let below = ["host", "guest-sdk", "tests", "Cargo.toml"];
    let sources = below.into_iter().flat_map(sources).map(|(_, text)| text);
    let others = ["deploy/compose.yaml", "examples/build-languages.sh"];
    sources.chain(others.into_iter().map(read)).collect()
}

#[test]
fn every_decision_is_named_where_it_applies_and_no_other_is_named() {
    let mut named = BTreeSet::new();
    for text in explained() {
        for rest in
            text.split("docs/decisions/").skip(1).filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        {
            let end = rest.find(".md").unwrap_or_else(|| panic!("`{}` is no decision", rest.lines().next().unwrap()));
            named.insert(rest[..end].to_owned() + ".md");
        }
    }
    assert_eq!(named, decisions().into_iter().collect::<BTreeSet<_>>());
}
