//! The invariants of ARCHITECTURE.md that a look at the source can hold.

use std::path::{Path, PathBuf};

/// All source files below a folder or file of the project, with their text.
pub(crate) fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut sources = files(&[below], "rs");
    sources.extend(files(&[below], "toml"));
    assert!(!sources.is_empty(), "nothing is left of `{below}`");
    sources
}

/// All files with one ending below folders or files of the project, with their text.
pub(crate) fn files(below: &[&str], extension: &str) -> Vec<(PathBuf, String)> {
    let mut open: Vec<PathBuf> =
        below.iter().map(|below| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(below)).collect();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}

/// No line of code below the folder, comments aside, holds one of the words.
fn assert_absent(below: &str, words: &[&str]) {
    for (path, text) in sources(below) {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{} has `{word}`: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_cache_knows_no_wasmtime_no_toml_and_no_command_line() {
    let words =
        ["wasmtime", "toml", "serde", "clap", "crate::config", "crate::linker", "crate::runtime", "crate::engine"];
    assert_absent("host/cache/src", &words);
}

#[test]
fn the_linker_knows_no_backend_and_no_configuration() {
    assert_absent("host/runtime/src/linker", &["crate::config", "redis", "quick_cache", "RamBackend", "ValkeyBackend"]);
    assert_absent(
        "host/runtime/src/linker.rs",
        &["crate::config", "redis", "quick_cache", "RamBackend", "ValkeyBackend"],
    );
}

#[test]
fn the_configuration_opens_no_connection() {
    assert_absent("host/runtime/src/config", &["tokio", "redis::", "wasmtime"]);
    assert_absent("host/runtime/src/config.rs", &["tokio", "redis::", "wasmtime"]);
}

#[test]
fn one_module_constructs_backends() {
    for (path, text) in sources("host") {
        let is_allowed = path.ends_with("caches.rs") && !path.ends_with("config/caches.rs")
            || path.ends_with("ram.rs")
            || path.ends_with("valkey.rs");
        let constructs = text.contains("RamBackend::new(") || text.contains("ValkeyBackend::connect(");
        assert!(is_allowed || !constructs, "{} constructs a backend", path.display());
    }
}

#[test]
fn the_redis_client_is_used_in_one_place() {
    for (path, text) in sources("host") {
        let is_allowed = path.components().any(|part| part.as_os_str() == "valkey") || path.ends_with("valkey.rs");
        assert!(is_allowed || !text.contains("redis::"), "{} uses the Redis client", path.display());
    }
}

#[test]
fn the_guest_sdk_depends_on_no_host_crate() {
    assert_absent("guest-sdk", &["larder-host", "larder_host", "wasmtime", "tokio"]);
}
