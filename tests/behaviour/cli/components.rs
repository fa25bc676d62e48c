//! Files that this host cannot run as plugins: each kind has its own message.

use larder_tests::{Larder, LarderOutput, guest};

/// `larder run` of a file with these bytes.
fn run_file(bytes: &[u8]) -> LarderOutput {
    let larder = Larder::new(["run", "plugin.wasm"]);
    std::fs::write(larder.folder().join("plugin.wasm"), bytes).unwrap();
    let run = larder.fail(1);
    assert_eq!(run.stdout, "");
    assert!(run.error_line().starts_with("larder: cannot load plugin `plugin.wasm`: "), "{}", run.stderr);
    run
}

fn is_refused(bytes: &[u8], words: &str) {
    let run = run_file(bytes);
    assert!(run.stderr.contains(words), "`{words}` is not in: {}", run.stderr);
}

#[test]
fn a_core_module_is_recognised_and_the_message_names_the_remedy() {
    is_refused(
        b"\0asm\x01\0\0\0",
        "a core WebAssembly module, not a component; build it for the target `wasm32-wasip2`",
    );
    let module = wat::parse_str("(module (func (export \"_start\")))").unwrap();
    is_refused(&module, "a core WebAssembly module, not a component");
}

#[test]
fn a_truncated_component_is_not_a_valid_component() {
    let whole = std::fs::read(guest("script")).unwrap();
    for len in [whole.len() / 2, whole.len() - 1, 9] {
        is_refused(&whole[..len], "this is not a valid component: ");
    }
}

#[test]
fn a_component_of_noise_is_not_a_valid_component() {
    let mut noise = std::fs::read(guest("script")).unwrap();
    for (n, byte) in noise.iter_mut().enumerate().skip(8) {
        *byte = byte.wrapping_mul(31).wrapping_add((n % 251) as u8);
    }
    is_refused(&noise, "this is not a valid component: ");
}

#[test]
fn a_file_that_is_not_webassembly_is_refused_as_such() {
    is_refused(b"#!/bin/sh\necho hello\n", "this is not a WebAssembly file");
    is_refused(b"(component)", "this is not a WebAssembly file");
    is_refused(b"", "this is not a WebAssembly file");
    is_refused(b"\0as", "this is not a WebAssembly file");
}

#[test]
fn a_missing_file_is_named() {
    let run = Larder::new(["run", "none.wasm"]).fail(1);
    assert!(run.error_line().starts_with("larder: cannot load plugin `none.wasm`: No such file"), "{}", run.stderr);
    let run = Larder::new(["run", "."]).fail(1);
    assert!(run.error_line().starts_with("larder: cannot load plugin `.`: Is a directory"), "{}", run.stderr);
}

#[test]
fn a_component_with_an_unknown_import_is_refused_with_its_name() {
    let interface = "(component (import \"acme:billing/ledger@1.0.0\" (instance (export \"book\" (func)))))";
    let run = run_file(&wat::parse_str(interface).unwrap());
    assert!(run.stderr.contains("it imports something this host does not provide: "), "{}", run.stderr);
    assert!(run.stderr.contains("acme:billing/ledger@1.0.0"), "{}", run.stderr);
    assert!(run.stderr.contains("compose the component with one that exports the interface"), "{}", run.stderr);
    let interface = "(component (import \"wasi:nn/graph@0.2.0\" (instance (export \"load\" (func)))))";
    is_refused(&wat::parse_str(interface).unwrap(), "this host has cli, clocks,");
    let function = "(component (import \"book\" (func)))";
    is_refused(&wat::parse_str(function).unwrap(), "it imports something this host does not provide: ");
    // An interface that is there, with a function that is not.
    let function = "(component (import \"larder:cache/cache@0.1.1\" (instance (export \"open-sesame\" (func)))))";
    is_refused(&wat::parse_str(function).unwrap(), "open-sesame");
}

#[test]
fn a_component_without_a_main_names_what_can_be_invoked() {
    is_refused(&wat::parse_str("(component)").unwrap(), "it exports no functions");
    let run = Larder::run("exports").fail(1);
    let words = "it is not a command; call one of its functions with `--invoke`: `greet`, `half`";
    assert!(run.error_line().contains(words), "{}", run.stderr);
}

/// What cannot be loaded must not keep a host from being asked about its configuration first, nor the other way round.
#[test]
fn a_bad_configuration_is_reported_before_a_bad_plugin() {
    let run = Larder::new(["run", "none.wasm"]).config("defualt = \"ram\"\n").fail(2);
    assert!(run.error_line().starts_with("larder: larder.toml:1:1: "), "{}", run.stderr);
}
