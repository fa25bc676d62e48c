//! Releases: packages are complete, versions agree, and the archive and the workflow are as described.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use larder_tests::program;
use larder_tests::repository::{read, root, sources};
use serde_json::Value;

const CRATES: [&str; 5] = ["guest-sdk", "guest-sdk/macros", "host/cache", "host/runtime", "host/cli"];

/// The crates that have a copy of the WIT.
const WITH_WIT: [&str; 3] = ["guest-sdk", "host/runtime", "host/cli"];

fn manifest(path: &str) -> toml::Table {
    read(path).parse().unwrap()
}

fn version() -> String {
    manifest("Cargo.toml")["workspace"]["package"]["version"].as_str().unwrap().to_owned()
}

/// The standard output of a command that must succeed.
fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.current_dir(root()).output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

// Decision: docs/decisions/0049-each-crate-has-a-copy-of-the-wit-package-and-the-licence.md
/// A package contains only files of its folder, so each has a copy; `make interface` updates it.
#[test]
fn each_crate_has_the_wit_and_the_licence_in_it() {
    let asynchronous = ("wit/cache-async.wit", &WITH_WIT[..]);
    for (original, folders) in [("wit/cache.wit", &WITH_WIT[..]), asynchronous, ("LICENSE", &CRATES)] {
        for folder in folders {
            let copy = format!("{folder}/{original}");
            if std::env::var_os("LARDER_UPDATE").is_some() {
                std::fs::write(root().join(&copy), read(original)).unwrap();
            }
            assert!(read(&copy) == read(original), "{copy} is not {original}: `make interface` copies it");
        }
    }
}

#[test]
fn a_package_has_every_file_that_it_is_built_from() {
    for folder in CRATES {
        let name = manifest(&format!("{folder}/Cargo.toml"))["package"]["name"].as_str().unwrap().to_owned();
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let arguments = ["package", "--list", "--allow-dirty", "--locked", "--offline", "-p", &name];
        let packed = output(Command::new(cargo).args(arguments));
        let packed: Vec<&str> = packed.lines().collect();
        for needed in ["Cargo.toml", "LICENSE", "README.md"] {
            assert!(packed.contains(&needed), "`{name}` is packed without {needed}: {packed:?}");
        }
        assert!(!WITH_WIT.contains(&folder) || packed.contains(&"wit/cache.wit"), "`{name}` is packed without the WIT");
        for (path, text) in sources(&format!("{folder}/src")) {
            let path = path.canonicalize().unwrap();
            let inside = |path: &Path| {
                let below = root().join(folder).canonicalize().unwrap();
                path.strip_prefix(below).unwrap_or_else(|_| panic!("{} is not packed", path.display())).to_owned()
            };
            assert!(packed.contains(&inside(&path).to_str().unwrap()), "{} is not packed", path.display());
            for included in included(&text) {
                let target = path.parent().unwrap().join(&included).canonicalize().unwrap();
                assert!(
                    packed.contains(&inside(&target).to_str().unwrap()),
                    "`{name}` is packed without {}",
                    included.display()
                );
            }
        }
    }
}

/// The files that a source file includes, relative to it.
fn included(source: &str) -> Vec<PathBuf> {
    let named = |name| source.split(name).skip(1).map(|rest: &str| rest.split('"').next().unwrap());
    let files = ["include_str!(\"", "include_bytes!(\"", "include!(\""].into_iter().flat_map(named).map(PathBuf::from);
    // Those of `larder new` are named from their own folder.
    let templates = named("template!(\"").map(|file| root().join("host/cli/templates").join(file));
    files.chain(templates).collect()
}

/// The fields that the registry requires, within its limits.
#[test]
fn each_package_says_what_it_is() {
    for folder in CRATES {
        let manifest = manifest(&format!("{folder}/Cargo.toml"));
        let package = manifest["package"].as_table().unwrap();
        let text = |key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or_else(|| panic!("no `{key}`"));
        let list = |key: &str| -> Vec<&str> {
            package[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
        };
        assert!(text("description").to_lowercase().contains("cache"), "{}", text("description"));
        assert_eq!(text("documentation"), format!("https://docs.rs/{}", text("name")));
        assert_eq!(text("readme"), "README.md");
        let keywords = list("keywords");
        assert!(keywords.len() <= 5 && keywords.iter().all(|word| word.len() <= 20), "{keywords:?}");
        assert!(list("categories").iter().all(|category| ["caching", "wasm"].contains(category)));
        for shared in ["version", "edition", "rust-version", "license"] {
            assert_eq!(package[shared]["workspace"].as_bool(), Some(true), "{folder}: {shared}");
        }
        // It is documented with features that it has.
        let docs = &package["metadata"]["docs"]["rs"];
        for feature in docs.get("features").and_then(toml::Value::as_array).into_iter().flatten() {
            assert!(manifest["features"].get(feature.as_str().unwrap()).is_some(), "{folder}: {feature}");
        }
    }
}

#[test]
fn the_crates_the_interface_and_the_changelog_are_of_one_version() {
    let version = version();
    let workspace = manifest("Cargo.toml");
    for name in ["larder", "larder-macros", "larder-cache", "larder-host"] {
        assert_eq!(workspace["workspace"]["dependencies"][name]["version"].as_str(), Some(version.as_str()), "{name}");
    }
    let wit = read("wit/cache.wit");
    let interface = wit.strip_prefix("package larder:cache@").unwrap().split(';').next().unwrap();
    let first_two = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(first_two(interface), first_two(&version), "the interface is of {interface}");
    for file in ["examples/wit/plugin.wit", "examples/javascript/larder-cache.js"] {
        assert!(read(file).contains(&format!("larder:cache/cache@{interface}")), "{file} has another version");
    }
    assert!(read("CHANGELOG.md").contains(&format!("larder:cache@{interface}")));
}

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = read("CHANGELOG.md");
    let heading = changelog.lines().find_map(|line| line.strip_prefix("## ")).unwrap();
    let (version_there, date) = heading.split_once(", ").unwrap();
    assert_eq!(version_there, version());
    let is_date = date.len() == 10 && date.split('-').all(|number| number.parse::<u32>().is_ok());
    assert!(date == "not yet released" || is_date, "`{date}` is not a date");
}

/// Of its version only, and only when that has a date.
#[test]
fn the_notes_of_a_release_are_a_section_of_the_changelog() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join(".ci")).unwrap();
    let script = folder.path().join(".ci/notes");
    std::fs::copy(root().join(".ci/notes"), &script).unwrap();
    let changelog = "# Changelog\n\n## 0.3.0, not yet released\n\n- Three.\n\n## 0.2.0, 2026-12-31\n\n- Two.\n\n## 0.1.0, \
                     2026-12-01\n\n- One.\n";
    std::fs::write(folder.path().join("CHANGELOG.md"), changelog).unwrap();
    let notes = |version: &str| Command::new(&script).arg(version).output().unwrap();
    for (version, expected) in [("0.2.0", "- Two."), ("0.1.0", "- One.")] {
        let notes = notes(version);
        assert!(notes.status.success(), "{notes:?}");
        assert_eq!(String::from_utf8(notes.stdout).unwrap().trim(), expected);
    }
    for version in ["0.3.0", "0.4.0"] {
        assert!(!notes(version).status.success(), "{version} is released");
    }
}

#[test]
fn an_archive_holds_the_program_and_what_belongs_to_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let packed = output(Command::new(root().join(".ci/dist")).arg(program()).arg(folder.path()));
    let archive = PathBuf::from(packed.trim());
    let name = archive.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("larder-{}-{}-", version(), std::env::consts::ARCH)), "{name}");
    let sum = std::fs::read_to_string(format!("{}.sha256", archive.display())).unwrap();
    assert!(sum.split_whitespace().next().unwrap().len() == 64 && sum.trim().ends_with(name), "{sum}");

    output(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()));
    let unpacked = folder.path().join(name.strip_suffix(".tar.gz").unwrap());
    let said = output(Command::new(unpacked.join("larder")).arg("-V"));
    assert_eq!(said.trim(), format!("larder {}", version()));
    for file in ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "larder.toml", "cache.wit"] {
        assert!(unpacked.join(file).is_file(), "{file}");
    }
}

/// `cargo binstall` looks for an archive under the name that `.ci/dist` gives it.
#[test]
fn an_archive_is_where_cargo_binstall_looks() {
    let manifest = manifest("host/cli/Cargo.toml");
    let binstall = |key: &str| manifest["package"]["metadata"]["binstall"][key].as_str().unwrap();
    let name = "larder-{ version }-{ target }";
    assert_eq!(binstall("pkg-url"), format!("{{ repo }}/releases/download/v{{ version }}/{name}.tar.gz"));
    assert_eq!(binstall("bin-dir"), format!("{name}/{{ bin }}{{ binary-ext }}"));
    assert_eq!(binstall("pkg-fmt"), "tgz");
}

#[test]
fn the_workflow_runs_scripts_and_targets_that_exist() {
    let workflow: Value = serde_saphyr::from_str(&read(".github/workflows/ci.yml")).unwrap();
    assert_eq!(workflow["permissions"], serde_json::json!({ "contents": "read" }));
    let makefile = read("Makefile");
    let mut commands = Vec::new();
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        assert!(job["timeout-minutes"].is_u64(), "{name} may run for ever");
        let needs = job["needs"].as_array().cloned().unwrap_or_else(|| vec![job["needs"].clone()]);
        for needed in needs.iter().filter_map(Value::as_str) {
            assert!(workflow["jobs"][needed].is_object(), "{name} needs `{needed}`");
        }
        for step in job["steps"].as_array().unwrap() {
            if let Some(action) = step["uses"].as_str() {
                let (owner, version) = action.split_once('@').unwrap();
                assert!(owner.starts_with("actions/"), "`{action}` is not an action of GitHub");
                assert!(
                    version.starts_with('v') && version[1..].parse::<u32>().is_ok(),
                    "`{action}` has no fixed version"
                );
            }
            let Some(script) = step["run"].as_str() else { continue };
            output(Command::new("bash").args(["-n", "-c", script]));
            assert!(script.lines().count() == 1, "{name} has a script of its own: {script}");
            for command in script.split(" || ") {
                match command.split(' ').collect::<Vec<_>>()[..] {
                    ["make", target] => assert!(makefile.contains(&format!("\n{target}:")), "no target `{target}`"),
                    ["apt-get" | "gh", ..] => {}
                    // Without a name, rustup before 1.28 installs a toolchain only to show it.
                    ["rustup", ..] => assert_eq!(script, "rustup show active-toolchain || rustup toolchain install"),
                    [script, ..] => {
                        assert!(root().join(script).is_file(), "there is no `{script}`");
                        // A test runs that one, which is in Python.
                        if script != ".ci/packages" {
                            output(Command::new("bash").arg("-n").arg(script));
                        }
                    }
                    [] => panic!("{name} has an empty step"),
                }
            }
            commands.push(script);
        }
    }
    for needed in [".ci/run", "make dist", "make guests", ".ci/image", ".ci/packages target/dist target/packages"] {
        assert!(commands.contains(&needed), "{needed} is not run: {commands:?}");
    }
    // An archive, and so a package, for each platform.
    let machines = &workflow["jobs"]["build"]["strategy"]["matrix"]["runner"];
    assert_eq!(machines, &serde_json::json!(["ubuntu-22.04", "ubuntu-22.04-arm", "macos-15", "macos-15-intel"]));
    // The image is built and run on both of its architectures.
    let machines = &workflow["jobs"]["image"]["strategy"]["matrix"]["runner"];
    assert_eq!(machines, &serde_json::json!(["ubuntu-24.04", "ubuntu-24.04-arm"]));
    assert!(makefile.contains(".ci/dist target/release/larder target/dist"));
}
