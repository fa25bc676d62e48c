//! What we build on: licences that an Apache-2.0 program may ship, one registry, and nothing that was banned.
//!
//! Advisories are not looked at: their list is not in the registry.

#![cfg(target_os = "linux")]

use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named.
const ALLOWED: [&str; 12] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Zlib",
];

/// A second provider for TLS would have to be chosen at run time; OpenSSL has to be there, or be built.
const BANNED: [&str; 4] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl-sys"];

/// Every package in the tree for this machine, as cargo has it.
fn packages() -> Vec<Value> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut metadata = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    metadata.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &target]);
    let output = metadata.current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    packages
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("`{}` names no licence", name(&package)));
        let licence = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).unwrap();
        let is_allowed = |needed: &spdx::LicenseReq| ALLOWED.contains(&needed.to_string().as_str());
        assert!(licence.evaluate(is_allowed), "`{}`: {licence}", name(&package));
    }
}

#[test]
fn every_dependency_comes_from_the_one_registry_or_from_here() {
    for package in packages() {
        let source = package["source"].as_str();
        let is_known = |source: &str| source == "registry+https://github.com/rust-lang/crates.io-index";
        assert!(source.is_none_or(is_known), "`{}` comes from {source:?}", name(&package));
    }
}

#[test]
fn nothing_that_is_banned_is_in_the_tree() {
    for package in packages() {
        assert!(!BANNED.contains(&name(&package)), "`{}` is banned", name(&package));
        // Of our own packages no dependency takes whatever version there is.
        for dependency in package["dependencies"].as_array().unwrap() {
            let is_ours = package["source"].is_null() && !dependency["source"].is_null();
            assert!(!is_ours || dependency["req"] != "*", "`{}` takes any {}", name(&package), dependency["name"]);
        }
    }
}
