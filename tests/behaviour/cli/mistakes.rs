//! Typical mistakes of a first day: each message names the next step.

use larder_tests::{Kind, Larder, LarderOutput, Server, guest};

/// The line of an error, which has all these words.
fn has(run: &LarderOutput, words: &[&str]) {
    let line = run.stderr.lines().last().unwrap_or_else(|| panic!("{run:#?}"));
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
}

/// `larder` with a file of these bytes, named `plugin.wasm`.
fn with_file(command: &str, text: &str) -> Larder {
    let larder = Larder::new([command, "plugin.wasm"]);
    std::fs::write(larder.folder().join("plugin.wasm"), wat::parse_str(text).unwrap()).unwrap();
    larder
}

#[test]
fn a_core_module_is_to_be_built_for_another_target() {
    let run = with_file("run", "(module)").fail(1);
    has(&run, &["a core WebAssembly module, not a component", "build it for the target `wasm32-wasip2`"]);
}

#[test]
fn a_plugin_that_was_not_built_is_to_be_built_for_the_target_that_is_named() {
    let run = Larder::new(["run", "target/wasm32-wasip2/release/hello.wasm"]).fail(1);
    let step =
        "build it: `cargo build --release --target wasm32-wasip2`, which needs `rustup target add wasm32-wasip2` once";
    has(&run, &["No such file", step]);
    has(&Larder::new(["run", "hello.wasm"]).fail(1), &["build the plugin first, or correct the path"]);
    let larder = Larder::new(["run", "hello-world.wasm"]);
    for name in ["hello_world.wasm", "other.wasm", "hello-world.txt"] {
        std::fs::write(larder.folder().join(name), "").unwrap();
    }
    has(&larder.fail(1), &["did you mean `hello_world.wasm`?"]);
}

#[test]
fn a_plugin_that_serves_http_is_for_larder_serve() {
    let handler = "(component (instance $handler) (export \"wasi:http/incoming-handler@0.2.0\" (instance $handler)))";
    let run = with_file("run", handler).fail(1);
    has(&run, &["it is not a command but serves HTTP; type `larder serve plugin.wasm`"]);
    // One that has a `main` for the linker alone says so when that fails.
    for plugin in ["http", "warm"] {
        has(&Larder::run(plugin).fail(1), &["it also serves HTTP: type `larder serve "]);
    }
}

#[test]
fn a_command_is_for_larder_run() {
    let run = Larder::serve().arg(guest("script")).fail(1);
    has(&run, &["cannot answer requests; it is a command: type `larder run "]);
    let run = with_file("serve", "(component)").fail(1);
    has(&run, &["cannot answer requests; build it with an HTTP handler"]);
}

#[test]
fn a_component_of_another_world_is_told_what_this_host_has() {
    let nn = "(component (import \"wasi:nn/graph@0.2.0\" (instance (export \"load\" (func)))))";
    has(&with_file("run", nn).fail(1), &["`wasi:nn/graph@0.2.0`", "of WASI 0.2 this host has cli, clocks,"]);
}

#[test]
fn a_misspelt_table_of_a_plugin_is_named_beside_the_plugin() {
    let run = Larder::run("script").config("[plugins.scirpt]\n").succeed();
    has(&run, &["plugin `script` has no table `[plugins.script]`", "is `[plugins.scirpt]` meant for it?"]);
}

#[test]
fn a_plugin_without_a_table_is_told_which_there_are() {
    let config = "[plugins.shop]\n[plugins.cart]\n";
    let run = Larder::run("script").config(config).succeed();
    has(
        &run,
        &[
            "plugin `script` has no table `[plugins.script]`, so it may use every cache; there are tables for `cart`, `shop`",
        ],
    );
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
    // It has a table, and the other one may be for another plugin.
    let run = Larder::run_with(&["--name", "shop"], "script").config(config).succeed();
    assert_eq!(run.stderr, "");
}

#[test]
fn a_misspelt_cache_is_answered_with_the_nearest_name() {
    let config = "default = \"pages\"\n[caches.pages]\ntype = \"ram\"\n[caches.users]\ntype = \"ram\"\n";
    let run = Larder::new(["cache", "--cache", "page", "get", "k"]).config(config).fail(2);
    has(&run, &["there is no cache `page`, only `pages`, `users`; did you mean `pages`?"]);
    let run = Larder::run("script").config(&config.replace("default = \"pages\"", "default = \"pagse\"")).fail(2);
    has(&run, &["there is no cache `pagse`", "did you mean `pages`?"]);
}

#[test]
fn two_caches_without_a_default_are_answered_with_the_line_to_add() {
    let run = Larder::run("script").config("[caches.a]\ntype = \"ram\"\n[caches.b]\ntype = \"ram\"\n").fail(2);
    has(&run, &["`default` is missing: it must name one of `a`, `b`", "`default = \"a\"`"]);
}

#[test]
fn a_port_in_use_is_answered_with_the_option_that_chooses_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, port) = (taken.local_addr().unwrap().to_string(), taken.local_addr().unwrap().port().to_string());
    for (larder, option) in [
        (Larder::new(["serve", "--addr", &address]), "--addr"),
        (Larder::new(["serve", "--addr", &port]), "--addr"),
        (Larder::new(["serve", "--addr", &format!(":{port}")]), "--addr"),
        (Larder::serve().arg("--metrics-addr").arg(&address), "--metrics-addr"),
    ] {
        let step = format!("another program uses the port: stop it, or choose another one with `{option}`");
        has(&larder.arg(guest("http")).fail(1), &[&format!("cannot listen on {address}: "), &step]);
    }
}

#[test]
fn a_server_that_is_down_is_to_be_started() {
    let run = Larder::run("script").config("[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = 1\n").fail(1);
    has(
        &run,
        &["cannot reach Valkey at `127.0.0.1:1`: Connection refused", "; start the server, or correct its address"],
    );
}

#[test]
fn a_wrong_or_missing_password_is_answered_with_the_keys_to_correct() {
    let Some(server) = Server::start_with(Kind::Valkey, &["--requirepass", "s3cret"]) else { return };
    let missing = Larder::run("script").config(&server.cache("c")).fail(1);
    has(&missing, &["it was reached, but asks for a password: set `password_file` or `password`"]);
    let wrong = Larder::run("script").config(&(server.cache("c") + "password = \"wrong\"\n")).fail(1);
    has(&wrong, &["it was reached, but refused the user name or password (correct `username` or `password`)"]);
}

#[test]
fn a_bad_duration_is_answered_with_a_good_one() {
    for (duration, words) in
        [("\"soon\"", "`soon` is not a duration; try \"10s\" or \"500ms\""), ("\"5M\"", "`5M`: write `m` for minutes")]
    {
        let run =
            Larder::run("script").config(&format!("[caches.c]\ntype = \"ram\"\ndefault_expire = {duration}\n")).fail(2);
        has(&run, &["larder.toml:3:18: `caches.c.default_expire`: ", words]);
    }
}
