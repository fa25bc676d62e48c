//! Files that no compiler makes: each loads within bounded time and memory, or is refused with one line.

use std::fs::File;
use std::process::Command;

#[cfg(target_os = "linux")]
use larder_tests::Terminal;
use larder_tests::{Larder, LarderOutput, guest};

/// `larder run` of a file with these bytes, compiled by this run.
fn run_file(config: &str, bytes: &[u8]) -> LarderOutput {
    let larder = Larder::new(["run", "--invoke", "f()", "plugin.wasm"]).config(config).env("LARDER_COMPILED", "off");
    std::fs::write(larder.folder().join("plugin.wasm"), bytes).unwrap();
    larder.finish()
}

fn loads(bytes: &[u8]) {
    let run = run_file("", bytes);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
}

fn is_refused(config: &str, bytes: &[u8], words: &[&str]) {
    let run = run_file(config, bytes);
    assert_eq!(run.status, Some(1), "{run:#?}");
    let line = run.error_line();
    assert!(line.starts_with("larder: cannot load plugin `plugin.wasm`: "), "{line}");
    for words in words {
        assert!(line.contains(words), "`{words}` is not in: {line}");
    }
}

/// A component that exports `f`, with more in its module.
fn component(more: &str) -> Vec<u8> {
    let text = format!(
        "(component (core module $m (func (export \"f\")) {more}) (core instance $i (instantiate $m))
         (func (export \"f\") (canon lift (core func $i \"f\"))))"
    );
    wat::parse_str(text).unwrap()
}

/// A number as WebAssembly writes it.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A component in a component, and so on.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    let mut heads = Vec::new();
    let mut size = COMPONENT.len();
    for _ in 0..depth {
        // A section of type 4, the component within.
        let head = [COMPONENT, &[4], &leb128(size)].concat();
        size += head.len();
        heads.push(head);
    }
    heads.reverse();
    heads.push(COMPONENT.to_vec());
    heads.concat()
}

#[test]
fn components_nested_more_than_100_deep_are_refused() {
    for depth in [101, 8_000, 20_000] {
        is_refused("", &nested(depth), &["its components are nested more than 100 deep"]);
    }
    let larder = Larder::new(["run", "plugin.wasm"]);
    std::fs::write(larder.folder().join("plugin.wasm"), nested(100)).unwrap();
    let run = larder.fail(1);
    assert!(run.error_line().contains("it exports no functions"), "{}", run.stderr);
}

#[test]
fn a_function_of_20_000_branches_loads() {
    let nested = format!("(func {} {})", "i32.const 0 if ".repeat(20_000), "end ".repeat(20_000));
    let successive = format!("(func {})", "i32.const 0 if end ".repeat(20_000));
    for function in [nested, successive] {
        loads(&component(&function));
    }
}

#[test]
fn a_component_of_10_000_functions_loads() {
    loads(&component(&"(func)".repeat(10_000)));
}

/// Types in types, which the compiler reads by recursion; instances of instances, which double at each level.
#[test]
fn what_crashes_the_compiler_or_fills_its_memory_is_refused_with_one_line() {
    let depth = 100_000;
    let types = COMPONENT.iter().copied();
    // Each level is a component type with one declaration, which is a type.
    let section = [vec![1], [0x41, 1, 1].repeat(depth), vec![0x41, 0]].concat();
    let types: Vec<u8> = types.chain([7]).chain(leb128(section.len())).chain(section).collect();
    is_refused("", &types, &[]);
    is_refused(
        "[sandbox]\nmax_compile_memory = \"256MiB\"\ncompile_timeout = \"20s\"\n",
        &endless(),
        &["compiling it "],
    );
}

#[test]
fn max_plugin_bytes_is_checked_before_a_file_is_read() {
    let larder = Larder::new(["run", "plugin.wasm"]);
    // It takes no space on the disk, and minutes to read.
    File::create(larder.folder().join("plugin.wasm")).unwrap().set_len(3 << 40).unwrap();
    let run = larder.fail(1);
    let words = "it has 3.0 TiB, more than 64.0 MiB; raise `max_plugin_bytes` of `[sandbox]`";
    assert!(run.error_line().contains(words), "{}", run.stderr);
    let bytes = component("");
    let bound = |size: usize| format!("[sandbox]\nmax_plugin_bytes = {size}\n");
    assert_eq!(run_file(&bound(bytes.len()), &bytes).status, Some(0));
    is_refused(&bound(bytes.len() - 1), &bytes, &["`max_plugin_bytes` of `[sandbox]`"]);
}

#[cfg(unix)]
#[test]
fn only_a_regular_file_is_read() {
    let larder = Larder::new(["run", "fifo.wasm"]);
    let fifo = larder.folder().join("fifo.wasm");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(larder.fail(1).error_line().contains("it is not a regular file"));
    let run = Larder::new(["run", "/dev/zero"]).fail(1);
    assert!(run.error_line().contains("it is not a regular file"), "{}", run.stderr);
}

#[test]
fn max_compile_memory_bounds_the_compiler() {
    let http = std::fs::read(guest("http")).unwrap();
    for memory in ["1", "8MiB", "24MiB"] {
        let config = format!("[sandbox]\nmax_compile_memory = \"{memory}\"\n");
        is_refused(&config, &http, &["`max_compile_memory` of `[sandbox]`"]);
    }
}

/// What takes any time to compile.
fn endless() -> Vec<u8> {
    let doubling = (1..40).fold("(component $c0)".to_owned(), |text, n| {
        format!("(component $c{n} {text} (instance (instantiate $c{0})) (instance (instantiate $c{0})))", n - 1)
    });
    wat::parse_str(format!("(component {doubling} (instance (instantiate $c39)))")).unwrap()
}

/// A person at a terminal learns why nothing happens; a log or a script gets no such line.
#[cfg(target_os = "linux")]
#[test]
fn a_compilation_that_takes_a_while_is_announced_on_a_terminal_only() {
    let folder = tempfile::TempDir::new().unwrap();
    let (config, plugin) = (folder.path().join("larder.toml"), folder.path().join("large.wasm"));
    let bounds = "[sandbox]\nmax_compile_memory = \"1GiB\"\ncompile_timeout = \"2s\"\n";
    std::fs::write(&config, bounds).unwrap();
    std::fs::write(&plugin, endless()).unwrap();
    let terminal = Terminal::run(&format!("--config '{}' run '{}'", config.display(), plugin.display()));
    let shown = terminal.wait_for_text("status 1");
    let line = format!("larder: compiling `{}` … (kept for the next run)", plugin.display());
    assert!(shown.contains(&line), "{shown}");
    let run = run_file(bounds, &endless());
    assert!(run.error_line().contains("compiling it "), "{}", run.stderr);
}

#[test]
fn compile_timeout_bounds_the_compiler() {
    let http = std::fs::read(guest("http")).unwrap();
    let config = "[sandbox]\ncompile_timeout = \"1ms\"\n";
    is_refused(config, &http, &["compiling it takes more than 1ms", "`compile_timeout` of `[sandbox]`"]);
}

/// A component with `count` instances of a module.
fn instances(count: usize, module: &str) -> Vec<u8> {
    let instances = "(core instance (instantiate $m))".repeat(count);
    let text = format!(
        "(component (core module $m {module}) {instances}
         (core module $f (func (export \"f\"))) (core instance $i (instantiate $f))
         (func (export \"f\") (canon lift (core func $i \"f\"))))"
    );
    wat::parse_str(text).unwrap()
}

fn is_bounded(key: &str, default: usize, of: impl Fn(usize) -> Vec<u8>) {
    loads(&of(default));
    let words = format!("raise `{key}` of `[sandbox]`");
    is_refused("", &of(default + 1), &[&words]);
    let more = format!("[sandbox]\n{key} = {}\n", default + 1);
    assert_eq!(run_file(&more, &of(default + 1)).status, Some(0));
}

#[test]
fn max_core_instances_is_checked_when_a_plugin_is_loaded() {
    is_bounded("max_core_instances", 64, |count| instances(count - 1, ""));
}

#[test]
fn max_memories_is_checked_when_a_plugin_is_loaded() {
    is_bounded("max_memories", 8, |count| instances(count, "(memory 1)"));
}

#[test]
fn max_tables_is_checked_when_a_plugin_is_loaded() {
    is_bounded("max_tables", 32, |count| instances(count, "(table 1 funcref)"));
    // All in one module.
    is_bounded("max_tables", 32, |count| component(&"(table 1 funcref)".repeat(count)));
}

#[test]
fn a_memory_or_table_that_starts_too_large_is_refused_when_a_plugin_is_loaded() {
    is_refused("", &component("(memory 2049)"), &["`max_memory` of `[sandbox]`"]);
    loads(&component("(memory 2048)"));
    is_refused("", &component("(table 100001 funcref)"), &["100000 elements"]);
    loads(&component("(table 100000 funcref)"));
}

/// Each instance would take the host 16 bytes for each global, which no other limit counts.
#[test]
fn a_component_of_many_globals_is_refused_when_it_is_loaded() {
    is_refused("", &component(&"(global i32 (i32.const 0))".repeat(100_000)), &["of the host's memory"]);
}

/// Names in a file may have 100,000 bytes.
#[test]
fn a_message_about_a_file_is_one_line_that_is_not_long() {
    let name = "n".repeat(50_000);
    let import = wat::parse_str(format!("(component (import \"{name}\" (func)))")).unwrap();
    let run = run_file("", &import);
    assert!(run.error_line().len() < 2_000, "{}", run.error_line().len());
    let exports: String = (0..1_000).map(|n| format!("(export \"f{n}-{}\" (func $f))", "x".repeat(80))).collect();
    let many = wat::parse_str(format!(
        "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
         (func $f (canon lift (core func $i \"f\"))) {exports})"
    ));
    let larder = Larder::new(["run", "plugin.wasm"]);
    std::fs::write(larder.folder().join("plugin.wasm"), many.unwrap()).unwrap();
    assert!(larder.fail(1).error_line().len() < 2_000);
}

#[cfg(target_os = "linux")]
#[test]
fn a_compiler_that_is_started_by_hand_says_what_it_is() {
    let run = Larder::new(["compile-plugin"]).fail(1);
    assert!(!run.error_line().is_empty());
    let help = Larder::new(["--help"]).succeed().stdout;
    assert!(!help.contains("compile-plugin"), "{help}");
}
