//! The copy of the SDK that is part of the program.

// Decision: docs/decisions/0110-the-sdk-is-part-of-the-program.md

use std::collections::BTreeMap;

use larder_tests::repository::{files, read, root};

const COPY: &str = "host/cli/templates/sdk";

/// The sources of a folder by their path in it, without those of tests.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let folder = root().join(folder);
    let path = |file: &std::path::Path| file.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
    let found = files(&[folder.to_str().unwrap()], "rs").into_iter().map(|(file, text)| (path(&file), text));
    found.filter(|(path, _)| !path.ends_with("tests.rs")).collect()
}

fn updates() -> bool {
    std::env::var_os("LARDER_UPDATE").is_some()
}

#[test]
fn the_sdk_of_the_program_is_a_copy_of_the_crate() {
    for part in ["src", "macros/src"] {
        let (original, copy) = (sources(&format!("guest-sdk/{part}")), format!("{COPY}/{part}"));
        assert!(original.contains_key("lib.rs"));
        if updates() {
            let _absent = std::fs::remove_dir_all(root().join(&copy));
            for (path, text) in &original {
                let file = root().join(&copy).join(path);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
        }
        let copied = sources(&copy);
        for path in original.keys().chain(copied.keys()) {
            assert!(original.get(path) == copied.get(path), "{copy}/{path} is no copy: `make interface` writes it");
        }
        // `larder new` writes each of them.
        let listed = read("host/cli/src/commands/new/sdk.rs");
        for path in original.keys() {
            let file = format!("(\"{part}/{path}\", template!(\"sdk/{part}/{path}\"))");
            assert!(listed.contains(&file), "`FILES` of host/cli/src/commands/new/sdk.rs has no {file}");
        }
    }
}

#[test]
fn its_manifests_are_those_of_the_crates() {
    for folder in ["", "macros/"] {
        let expected = manifest(&format!("guest-sdk/{folder}Cargo.toml"));
        let copy = format!("{COPY}/{folder}Cargo.toml.in");
        if updates() {
            std::fs::write(root().join(&copy), &expected).unwrap();
        }
        assert_eq!(read(&copy), expected, "`make interface` writes {copy}");
    }
}

/// A manifest without the workspace: with its values, and with the attribute in the folder beside it.
fn manifest(original: &str) -> String {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let workspace = &workspace["workspace"];
    let crate_: toml::Table = read(original).parse().unwrap();
    let is_inherited = |value: &toml::Value| value.get("workspace").is_some();
    let mut text = format!("# Written by `make interface`, from {original}.\n[package]\n");
    for key in ["name", "description", "version", "edition", "rust-version", "license"] {
        let value = &crate_["package"][key];
        let value = if is_inherited(value) { &workspace["package"][key] } else { value };
        text += &format!("{key} = {value}\n");
    }
    text += "publish = false\n";
    for table in ["lib", "features", "dependencies"] {
        let Some(values) = crate_.get(table) else { continue };
        text += &format!("\n[{table}]\n");
        for (name, value) in values.as_table().unwrap() {
            if name == "larder-macros" {
                text += "larder-macros = { path = \"macros\" }\n";
                continue;
            }
            let value = if is_inherited(value) { &workspace["dependencies"][name] } else { value };
            text += &format!("{name} = {value}\n");
        }
    }
    text + "\n# As in a crate from a registry.\n[lints.rust]\nwarnings = \"allow\"\n"
}
