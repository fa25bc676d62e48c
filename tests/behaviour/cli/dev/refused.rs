//! `larder dev` in a folder whose plugin cannot be built.

use super::*;

#[test]
fn a_folder_without_a_plugin_is_an_error_that_names_what_was_looked_for() {
    let output = folder(&[]).fail(1);
    assert_eq!(
        output.error_line(),
        "larder: this folder has no plugin: it has neither `Cargo.toml` (Rust) nor `requirements.txt`, `wit`, \
         `src/plugin.py` (Python) nor `package.json` (JavaScript); `larder new NAME` creates one"
    );
}

#[test]
fn of_two_plugins_in_a_folder_an_option_chooses_one() {
    let output = {
        let larder = rust(&[], "http");
        fs::write(larder.folder().join("package.json"), "{}").unwrap();
        larder.fail(1)
    };
    assert_eq!(
        output.error_line(),
        "larder: this folder has a plugin in Rust and one in JavaScript: choose with `--lang`"
    );
    let larder = rust(&["--lang", "rust"], "hello-cache");
    fs::write(larder.folder().join("package.json"), "{}").unwrap();
    Dev::start(larder).wait_for("stdout", "hello\n", 1);
    let output = rust(&["--lang", "python"], "http").fail(1);
    assert_eq!(
        output.error_line(),
        "larder: this folder has no plugin in Python: it has no `requirements.txt`; `larder new NAME` creates one"
    );
}

#[test]
fn a_missing_tool_is_named_with_the_next_step() {
    for (file, tool, hint) in [
        ("Cargo.toml", "cargo", "https://rustup.rs"),
        ("package.json", "npm", "https://nodejs.org"),
        ("requirements.txt", "python3", "https://www.python.org"),
    ] {
        let larder = folder(&["--quiet"]).env("PATH", "/nowhere");
        fs::create_dir(larder.folder().join("wit")).unwrap();
        fs::write(larder.folder().join("src/plugin.py"), "").unwrap();
        let text = if tool == "npm" { "{\"name\": \"shop\"}" } else { "[package]\nname = \"shop\"\n" };
        fs::write(larder.folder().join(file), text).unwrap();
        let output = larder.fail(1);
        let line = output.error_line();
        assert!(line.starts_with(&format!("larder: `{tool}` is not installed or not in `PATH`, ")), "{line}");
        assert!(line.contains(hint) && line.ends_with(", then start `larder dev` again"), "{line}");
    }
}

#[test]
fn a_manifest_without_one_name_for_the_built_file_is_refused() {
    for (manifest, message) in [
        ("[package", "`Cargo.toml` is not valid: "),
        (
            "[workspace]\n",
            "`Cargo.toml` has no `name` of a `[package]`: start `larder dev` in the folder of the plugin",
        ),
        (
            "[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\n[[bin]]\nname = \"c\"\n",
            "`Cargo.toml` has several programs: name one with `default-run` in `[package]`",
        ),
    ] {
        let larder = rust(&[], "http");
        fs::write(larder.folder().join("Cargo.toml"), manifest).unwrap();
        let output = larder.fail(1);
        assert!(output.error_line().starts_with(&format!("larder: {message}")), "{output:#?}");
    }
}

/// The file is sparse, but a host that reads it has it in memory.
#[test]
fn a_manifest_that_is_too_long_or_no_file_is_not_read() {
    for file in ["Cargo.toml", "package.json"] {
        let larder = folder(&["--quiet"]);
        let path = larder.folder().join(file);
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let output = larder.fail(1);
        assert_eq!(output.error_line(), format!("larder: cannot read `{file}`: it is longer than 1024 KiB"));

        let larder = folder(&["--quiet"]);
        let made = Command::new("mkfifo").arg(larder.folder().join(file)).status().unwrap();
        assert!(made.success());
        let output = larder.fail(1);
        assert_eq!(output.error_line(), format!("larder: cannot read `{file}`: it is not a regular file"));
    }
}

#[test]
fn an_invalid_configuration_is_refused_before_a_build() {
    let larder = rust(&[], "http").config("[caches.c]\ntype = \"none\"\n");
    let commands = larder.folder().join(".test/commands");
    larder.fail(2);
    assert!(!commands.exists());
}
