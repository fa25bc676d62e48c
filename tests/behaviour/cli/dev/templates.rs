//! `larder dev` with the real tools, on what `larder new` creates.

use std::path::PathBuf;

use larder_tests::repository::root;
use larder_tests::{program, template_plugin};

use super::*;

/// A new plugin in `greeter`, in a folder of its own.
fn new(arguments: &[&str]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(program());
    command.args(["new", "greeter"]).args(arguments).current_dir(folder.path());
    assert!(command.output().unwrap().status.success());
    let plugin = folder.path().join("greeter");
    fs::create_dir(plugin.join(".test")).unwrap();
    (folder, plugin)
}

/// Replaces a text of a source.
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// Serves what `larder new` has created.
fn serve((folder, plugin): (TempDir, PathBuf), variables: &[(&str, PathBuf)]) -> (Dev, PathBuf) {
    let larder = Larder::new(["dev", "--addr", "127.0.0.1:0"]);
    let compile = "[sandbox]\ncompile_timeout = \"10m\"\n";
    let config = fs::read_to_string(plugin.join("larder.toml")).unwrap();
    fs::write(plugin.join("larder.toml"), config + compile).unwrap();
    let larder = variables.iter().fold(larder, |larder, (name, value)| larder.env(name, value));
    let (mut command, _unused) = larder.into_command();
    let file = |name: &str| Stdio::from(fs::File::create(plugin.join(".test").join(name)).unwrap());
    command.current_dir(&plugin).stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
    let child = command.spawn().unwrap();
    // The files of the test are in the folder of the plugin.
    std::os::unix::fs::symlink(plugin.join(".test"), folder.path().join(".test")).unwrap();
    (Dev { child, folder }, plugin)
}

#[test]
fn a_new_plugin_in_rust_is_served_and_built_again() {
    assert!(template_plugin("rust-http").is_some());
    let (folder, plugin) = new(&["--http"]);
    // The toolchain and the versions that are here already. The built dependencies are those of `make templates`.
    for file in ["rust-toolchain.toml", "Cargo.lock"] {
        fs::copy(root().join(file), plugin.join(file)).unwrap();
    }
    let target = root().join("target/templates/cargo");
    let (dev, plugin) = serve((folder, plugin), &[("CARGO_TARGET_DIR", target), ("CARGO_NET_OFFLINE", "true".into())]);
    dev.assert_answer("/Ada", "Hello, Ada! (computed now)");
    dev.assert_answer("/Ada", "Hello, Ada! (from the cache)");
    edit(&plugin.join("src/main.rs"), "Hello, {name}!", "Good day, {name}!");
    dev.wait_for_reloads(1);
    dev.assert_answer("/Bob", "Good day, Bob!");
    let output = dev.end("-TERM");
    assert_eq!(output.status, Some(0), "{output:#?}");
}

#[test]
fn a_new_plugin_in_javascript_is_served_and_built_again() {
    if template_plugin("javascript-http").is_none() {
        return;
    }
    let (folder, plugin) = new(&["--http", "--lang", "javascript"]);
    let tools = root().join("target/languages/npm/node_modules");
    std::os::unix::fs::symlink(tools, plugin.join("node_modules")).unwrap();
    let (dev, plugin) = serve((folder, plugin), &[]);
    dev.assert_answer("/Ada", "Hello, Ada! (computed now)");
    edit(&plugin.join("src/plugin.js"), "Hello, ${name}!", "Good day, ${name}!");
    dev.wait_for_reloads(1);
    dev.assert_answer("/Bob", "Good day, Bob!");
    let output = dev.end("-TERM");
    assert_eq!(output.status, Some(0), "{output:#?}");
}
