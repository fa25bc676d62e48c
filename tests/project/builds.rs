//! The builds of the Makefile share their dependencies.

// Decision: docs/decisions/0055-one-set-of-features-for-every-build.md

use std::collections::BTreeSet;
use std::process::Command;

use larder_tests::repository::root;
use larder_tests::skip;

/// The commands of cargo by which `make` would build for this machine, without releases.
fn builds(targets: &[&str]) -> Option<Vec<String>> {
    let Ok(plan) = Command::new("make").args(["--dry-run", "CARGO=cargo"]).args(targets).current_dir(root()).output()
    else {
        skip("make is not installed");
        return None;
    };
    assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
    let plan = String::from_utf8(plan.stdout).unwrap().replace("\\\n", " ");
    let is_build = |line: &&str| line.contains("cargo ") && !line.contains("--release") && !line.contains("--target");
    Some(plan.lines().filter(is_build).map(str::to_owned).collect())
}

/// The dependencies from the registry that a command compiles: name and version, and the features.
fn dependencies(command: &str) -> BTreeSet<(String, String)> {
    let words: Vec<&str> = command.split_whitespace().skip_while(|word| *word != "cargo").skip(1).collect();
    let selected = words.windows(2).filter(|pair| ["-p", "--features"].contains(&pair[0])).flatten();
    let with_tests = words[0] == "test" || words.contains(&"--all-targets");
    let edges = if with_tests { "normal,build,dev" } else { "normal,build" };
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    tree.args(["tree", "--locked", "--prefix", "none", "--format", "{p} has {f}", "--edges", edges]);
    let output = tree.args(selected).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let packages = String::from_utf8(output.stdout).unwrap();
    let of_registry = packages
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.contains(" (/"));
    let split = |line: &str| {
        let (package, features) = line.split_once(" has").expect("the format has the features");
        (package.to_owned(), features.trim_start().to_owned())
    };
    of_registry.map(split).collect()
}

#[test]
fn no_build_compiles_a_dependency_of_the_tests_again_with_other_features() {
    let Some(tests) = builds(&["test"]) else { return };
    let tests = tests.iter().find(|command| command.contains("cargo test")).expect("`make test` runs `cargo test`");
    let tests = dependencies(tests);
    let of_tests: BTreeSet<&String> = tests.iter().map(|(package, _)| package).collect();
    assert!(of_tests.iter().any(|package| package.starts_with("wasmtime v")), "{of_tests:?}");
    for target in ["demo", "test", "lint", "doc", "interface"] {
        let builds = builds(&[target]).unwrap();
        assert!(!builds.is_empty(), "`make {target}` builds nothing");
        for command in builds {
            let others = dependencies(&command);
            let again = others.difference(&tests).filter(|(package, _)| of_tests.contains(package)).collect::<Vec<_>>();
            assert!(again.is_empty(), "`{command}` compiles these again; see tests/features/Cargo.toml: {again:#?}");
        }
    }
}
