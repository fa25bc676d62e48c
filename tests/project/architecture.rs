//! ARCHITECTURE.md and docs/decisions: the paths exist, the decisions are complete, and the invariants that can be read
//! from sources hold. Those about dependencies are rules in `deny.toml`, except two.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_tests::repository::{self, files, read, root, sources};

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

/// The files that a file of the server backend imports, by the paths `crate::valkey::…` in its code, and those that it
/// declares as modules. A path to an item that the backend's own file has is an import of that file.
fn valkey_imports(file: &str, text: &str, files: &BTreeSet<String>) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for path in line.split("crate::valkey::").skip(1) {
            let is_end = |letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter));
            let path = path.split(is_end).next().unwrap_or_default();
            let mut import = "valkey".to_owned();
            for name in path.split("::") {
                let longer = format!("{import}/{name}");
                if !files.contains(&longer) {
                    break;
                }
                import = longer;
            }
            imports.insert(import);
        }
        if let Some((_, module)) = line.strip_suffix(';').and_then(|line| line.split_once("mod ")) {
            imports.insert(format!("{file}/{module}"));
        }
    }
    imports
}

/// A circle of imports, if there is one: its first file, the files between, and the first again.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        file: &str,
        imports: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|earlier| earlier == file) {
            return Some([&path[start..], &[file.to_owned()]].concat());
        }
        if !done.insert(file.to_owned()) {
            return None;
        }
        path.push(file.to_owned());
        let found = imports[file].iter().find_map(|import| visit(import, imports, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|file| visit(file, imports, &mut Vec::new(), &mut done))
}

#[test]
fn the_files_of_the_server_backend_do_not_import_one_another_in_a_circle() {
    let name = |path: &Path| {
        let path = path.strip_prefix(root().join("host/cache/src")).unwrap().with_extension("");
        path.components().map(|part| part.as_os_str().to_str().unwrap()).collect::<Vec<_>>().join("/")
    };
    let sources = files(&["host/cache/src/valkey.rs", "host/cache/src/valkey"], "rs");
    let names: BTreeSet<String> = sources.iter().map(|(path, _)| name(path)).collect();
    let mut imports = BTreeMap::new();
    for (path, text) in &sources {
        // The tests of a file import the file itself.
        let outside = text.replace("use super::*;", "");
        assert_absent(&[(path.clone(), outside)], &["use super::", "use self::", "use crate::valkey::{", "::*;"]);
        imports.insert(name(path), valkey_imports(&name(path), text, &names));
    }
    assert!(imports["valkey/connection/pool"].contains("valkey/connection/managed"), "{imports:#?}");
    if let Some(circle) = circle(&imports) {
        panic!("the files import one another in a circle:\n  {}", circle.join("\n  imports "));
    }
}

#[test]
fn a_circle_of_imports_is_found_and_listed() {
    let files: BTreeSet<String> = ["valkey/a", "valkey/b", "valkey/b/c"].map(str::to_owned).into();
    let of = |file: &str, text: &str| valkey_imports(file, text, &files);
    let a = of("valkey/a", "use crate::valkey::b::c::{Item, Other};\n// use crate::valkey::a;\n");
    assert_eq!(a, ["valkey/b/c".to_owned()].into());
    assert_eq!(of("valkey/a", "use crate::valkey::Backend;"), ["valkey".to_owned()].into());
    let b = of("valkey/b", "pub(in crate::valkey) mod c;\n");
    assert_eq!(b, ["valkey/b/c".to_owned()].into());
    let c = of("valkey/b/c", "fn f() { crate::valkey::a::f() }");
    let mut imports: BTreeMap<_, _> =
        [("valkey/a".to_owned(), a), ("valkey/b".to_owned(), b), ("valkey/b/c".to_owned(), c)].into();
    assert_eq!(circle(&imports).unwrap(), ["valkey/a", "valkey/b/c", "valkey/a"]);
    imports.insert("valkey/b/c".to_owned(), BTreeSet::new());
    assert_eq!(circle(&imports), None);
}

/// `deny.toml` bans a package for all but the packages that it lists, and too many of other projects have these two.
#[test]
fn the_guest_sdk_does_not_use_tokio_and_the_cache_does_not_use_serde() {
    assert_absent(&sources("guest-sdk"), &["tokio"]);
    assert_absent(&sources("host/cache"), &["serde"]);
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
    let constructors = ["RamBackend::new(", "ValkeyBackend::connect"];
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
