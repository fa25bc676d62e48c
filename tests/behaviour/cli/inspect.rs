//! `larder plugin inspect`: what a plugin's file needs and offers.

use larder_tests::{Larder, guest};

fn inspect(name: &str) -> Larder {
    Larder::new(["plugin".as_ref(), "inspect".as_ref(), guest(name).as_os_str()])
}

#[test]
fn a_plugin_is_described_without_being_run() {
    let run = inspect("script").succeed();
    assert_eq!(run.stderr, "");
    for line in ["engine   WASI 0.2", "runs by  larder run", "imports:", "  larder:cache/cache@0.1.1"] {
        assert!(run.stdout.lines().any(|shown| shown == line), "`{line}` is not in: {}", run.stdout);
    }
    let served = inspect("http").succeed().stdout;
    assert!(served.contains("runs by  larder serve") && served.contains("  wasi:http/incoming-handler@"), "{served}");
    let functions = inspect("exports").succeed().stdout;
    assert!(functions.contains("runs by  larder run --invoke"), "{functions}");
    assert!(functions.contains("\n  test:exports/counters#visit\n"), "{functions}");
}

#[test]
fn the_size_is_that_of_the_file_and_the_time_says_whether_it_was_compiled_before() {
    let folder = tempfile::TempDir::new().unwrap();
    let bytes = std::fs::metadata(guest("script")).unwrap().len();
    let inspect = |options: &[&str]| {
        let larder = inspect("script").env("LARDER_COMPILED", folder.path());
        options.iter().fold(larder, |larder, option| larder.arg(option)).succeed().stdout
    };
    for compiled in ["compiled now", "compiled before"] {
        let shown = inspect(&[]);
        let line = |title: &str| shown.lines().find_map(|line| line.strip_prefix(title)).unwrap().trim().to_owned();
        assert_eq!(line("size"), format!("{:.1} KiB", bytes as f64 / 1024.0), "{shown}");
        let time = line("loaded   in ");
        let (seconds, how) = time.split_once(" s, ").unwrap();
        assert!(seconds.parse::<f64>().unwrap() < 120.0, "{shown}");
        assert_eq!(how, compiled);
    }
    let object: serde_json::Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    assert_eq!((&object["bytes"], &object["was_kept"]), (&bytes.into(), &true.into()));
    assert!(object["load_seconds"].as_f64().unwrap() > 0.0, "{object}");
}

#[test]
fn a_file_that_is_no_component_is_refused_as_it_is_when_it_is_run() {
    let larder = Larder::new(["plugin", "inspect", "p.wasm"]);
    std::fs::write(larder.folder().join("p.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let run = larder.fail(1);
    assert!(run.error_line().contains("a core WebAssembly module, not a component"), "{run:#?}");
    assert_eq!(run.stdout, "");
}

#[test]
fn an_import_that_this_host_lacks_is_marked_and_explained() {
    let larder = Larder::new(["plugin", "inspect", "p.wasm"]);
    let text = r#"(component (import "wasi:sockets/tcp@0.3.9" (instance (export "f" (func)))))"#;
    std::fs::write(larder.folder().join("p.wasm"), wat::parse_str(text).unwrap()).unwrap();
    let run = larder.fail(1);
    assert!(run.stdout.contains("  wasi:sockets/tcp@0.3.9  (not provided by this host)\n"), "{run:#?}");
    assert!(run.error_line().contains("it imports something this host does not provide"), "{run:#?}");
}

#[test]
fn a_middleware_is_told_that_it_cannot_import_the_handler() {
    let larder = Larder::new(["plugin", "inspect", "p.wasm"]);
    let text = r#"(component (import "wasi:http/handler@0.3.0" (instance (export "handle" (func)))))"#;
    std::fs::write(larder.folder().join("p.wasm"), wat::parse_str(text).unwrap()).unwrap();
    let run = larder.fail(1);
    assert!(run.stdout.contains("  wasi:http/handler@0.3.0  (not provided by this host)\n"), "{run:#?}");
    let advice =
        "; plugins export this interface, and cannot import it: compose the component with the handler (`wac plug`)";
    assert!(run.error_line().ends_with(advice), "{run:#?}");
}
