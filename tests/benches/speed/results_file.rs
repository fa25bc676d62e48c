//! The results file: the measurements, the machine, and the versions.

use std::ffi::OsStr;
use std::process::Command;

use serde_json::{Value, json};

/// The environment variable with the path of the file.
const VARIABLE: &str = "LARDER_RESULTS";

/// The output of a program, without the last line break.
pub(crate) fn output_of(program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Writes the results file, if the environment variable is set. `versions` are those of programs that were measured.
pub(crate) fn write(results: Value, versions: Vec<String>) {
    let Some(file) = std::env::var_os(VARIABLE).filter(|file| !file.is_empty()) else { return };
    assert!(
        results.as_array().is_none_or(|results| !results.is_empty()),
        "nothing was measured: the part has another name"
    );
    let line_of = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once([':', '=']));
        value.map(|(_, value)| value.trim().trim_matches('"').to_owned()).unwrap_or_default()
    };
    let lock = include_str!("../../../Cargo.lock");
    let version = |package: &str| {
        let begin = format!("name = \"{package}\"\nversion = \"");
        let version = lock.split_once(&begin).and_then(|(_, rest)| rest.split_once('"'));
        format!("{package} {}", version.expect("the package is in `Cargo.lock`").0)
    };
    let versions: Vec<String> = std::iter::once(output_of("rustc", &["--version"]))
        .chain(["wasmtime", "quick_cache", "moka", "redis"].map(version))
        .chain(versions)
        .collect();
    let contents = json!({
        "date": output_of("date", &["-u", "+%Y-%m-%d"]),
        "machine": {
            "processor": line_of("/proc/cpuinfo", "model name"),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "memory": line_of("/proc/meminfo", "MemTotal"),
            "system": line_of("/etc/os-release", "PRETTY_NAME"),
        },
        "versions": versions,
        "results": results,
    });
    let text = format!("{}\n", serde_json::to_string_pretty(&contents).unwrap());
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("{VARIABLE}: `{}`: {error}", file.display()));
}
