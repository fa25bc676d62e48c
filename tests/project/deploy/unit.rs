//! The unit of systemd.

use std::process::Command;

use larder_tests::{program, skip};

use super::*;

/// The values of a key, in order.
fn values(key: &str) -> Vec<String> {
    let unit = read("deploy/larder.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

fn value(key: &str) -> String {
    let [value] = <[String; 1]>::try_from(values(key)).unwrap_or_else(|values| panic!("{key}: {values:?}"));
    value
}

#[test]
fn it_starts_reloads_and_ends_the_program_as_the_program_expects() {
    let start = value("ExecStart");
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/larder");
    assert_understood(&words[1..]);
    // `tests/behaviour/serve/service_manager.rs` tests what the program says.
    assert_eq!(value("Type"), "notify");
    assert!(seconds(&value("TimeoutStartSec")) > Config::default().sandbox.loading.compile_timeout);
    // `tests/behaviour/serve/reload.rs` tests this signal.
    assert_eq!(value("ExecReload"), "kill -HUP $MAINPID");
    assert!(seconds(&value("TimeoutStopSec")) > Config::default().serve.shutdown_timeout);
}

#[test]
fn its_paths_and_variables_are_those_of_the_program() {
    let variables = values("Environment");
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|variable| variable.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(names_of(&variables), ["LARDER_COMPILED", Config::PATH_VARIABLE]);
    assert_variables_are_read(&variables, "");
    assert_eq!(variables["LARDER_COMPILED"], format!("/var/cache/{}", value("CacheDirectory")));
    assert_eq!(value("CacheDirectoryMode"), "0700", "a folder that others may write to is not used");

    // What it says to write into the configuration is a key, and the file that systemd makes of the credential.
    let credential = value("LoadCredential");
    let path = format!("/run/credentials/larder.service/{}", credential.split_once(':').unwrap().0);
    let unit = read("deploy/larder.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("#   password_file = ")).unwrap();
    assert_eq!(line, format!("\"{path}\""));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "s3cret").unwrap();
    let toml = format!("[caches.c]\ntype = \"valkey\"\npassword_file = {:?}\n", file.path());
    parse(&toml, &BTreeMap::new());
}

fn names_of(variables: &BTreeMap<String, String>) -> Vec<&str> {
    variables.keys().map(String::as_str).collect()
}

#[test]
fn it_takes_every_right_but_that_to_make_code_executable() {
    for (key, expected) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "no"),
    ] {
        assert_eq!(value(key), expected, "{key}");
    }
}

/// systemd knows every key, and finds that the unit exposes little.
#[test]
fn systemd_understands_it_and_calls_it_safe() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip("`systemd-analyze` is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("larder.service");
    let installed = program().display().to_string();
    std::fs::write(&unit, read("deploy/larder.service").replace("/usr/local/bin/larder", &installed)).unwrap();
    // From 0, safe, to 100; a service without any of these keys is at 96.
    for arguments in [&["verify", "--man=no"][..], &["security", "--offline=true", "--threshold=20", "--no-pager"]] {
        let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
    }
}
