//! Files that cannot be loaded: the host says so in one line, stays small, and serves the other plugins meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use larder_tests::{Client, HttpResponse, Larder, LarderOutput, ServeProcess, TEST_TIMEOUT, guest};

use super::metrics::values;
use crate::cli::loading::nested;

/// How much larger the host may become: twice the largest file, and what it takes to serve.
const GROWTH: u64 = 160 << 20;

/// The longest time that a request to another plugin takes while a file is loaded, on a machine that compiles beside.
const PATIENCE: Duration = Duration::from_secs(2);

/// A host with the plugin `http` in two files.
struct Host {
    serving: ServeProcess,
    changed: PathBuf,
    constant: PathBuf,
}

impl Host {
    fn watching(sandbox: &str) -> Self {
        Self::start(Larder::serve().arg("--watch"), sandbox)
    }

    fn start(larder: Larder, sandbox: &str) -> Self {
        let table = |name: &str| format!("[plugins.{name}]\npath = \"{name}.wasm\"\nroute = \"/{name}\"\n");
        let config = format!("{}{}[sandbox]\n{sandbox}", table("changed"), table("constant"));
        let larder = larder.config(&config);
        let [changed, constant] = ["changed", "constant"].map(|name| larder.folder().join(format!("{name}.wasm")));
        for file in [&changed, &constant] {
            std::fs::copy(guest("http"), file).unwrap();
        }
        Self { serving: ServeProcess::start_with_metrics_of(larder), changed, constant }
    }

    /// The number of loads of the plugin `changed` that ended so.
    async fn loads(&self, outcome: &str) -> f64 {
        let export = self.serving.get_from_metrics_port("/metrics").await.body;
        let name = format!("larder_plugin_loads_total{{plugin=\"changed\",outcome=\"{outcome}\"}}");
        values(&export).get(name.as_str()).copied().unwrap_or_default()
    }

    /// Waits until a load of `changed` has ended so, and asks the other plugin all the while.
    async fn ends(&self, outcome: &str, count: f64) {
        let client = Client::connect(self.serving.address()).await;
        let started = Instant::now();
        while self.loads(outcome).await < count {
            assert!(started.elapsed() < TEST_TIMEOUT, "no load of `changed` has ended as `{outcome}`");
            let asked = Instant::now();
            assert_eq!(client.get("/constant/do/hello").await.unwrap(), HttpResponse::ok("hello\n"));
            assert!(asked.elapsed() < PATIENCE, "{:?} during `{outcome}`", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The plugin `changed` is still the one from the start.
    async fn is_unchanged(&self) {
        assert_eq!(self.serving.get("/changed/do/hello").await, HttpResponse::ok("hello\n"));
    }

    /// Puts another plugin in the place of `changed`, which is then served.
    async fn recovers(&self) {
        replace(&self.changed, &std::fs::read(guest("http-pages")).unwrap());
        self.serves_pages("/changed/page").await;
    }

    async fn serves_pages(&self, path: &str) {
        let page = HttpResponse::ok(&format!("<h1>{path}</h1>\n"));
        let started = Instant::now();
        while self.serving.get(path).await != page {
            assert!(started.elapsed() < TEST_TIMEOUT, "{path} is not served by another plugin");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the host. The log has each of these lines once.
    async fn ends_with_lines(self, reasons: &[&str]) -> LarderOutput {
        let finished = self.serving.terminate().await;
        let log = &finished.stderr;
        assert_eq!(finished.status, Some(0), "{log}");
        for reason in reasons {
            let lines = log.lines().filter(|line| line.contains(reason)).collect::<Vec<_>>();
            assert_eq!(lines.len(), 1, "`{reason}`: {log}");
            assert!(lines[0].contains("kept the previous version of plugin `changed`: cannot load plugin"), "{log}");
        }
        finished
    }
}

/// Replaces a file atomically.
fn replace(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn fifo(path: &Path) {
    let new = path.with_extension("fifo");
    assert!(Command::new("mkfifo").arg(&new).status().unwrap().success());
    std::fs::rename(new, path).unwrap();
}

fn sparse(path: &Path) {
    let new = path.with_extension("sparse");
    File::create(&new).unwrap().set_len(3 << 30).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_of_20_000_components_is_refused_and_the_host_stays_small() {
    let mut host = Host::watching("");
    let before = host.serving.process().peak_memory();
    for (count, depth) in [(1.0, 8_000), (2.0, 20_000)] {
        replace(&host.changed, &nested(depth));
        host.ends("too-complex", count).await;
    }
    host.is_unchanged().await;
    host.recovers().await;
    let after = host.serving.process().peak_memory();
    assert!(after - before < GROWTH, "{before} to {after}");
    host.serving.terminate().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_file_is_not_read_and_a_fifo_does_not_block_the_reload() {
    let mut host = Host::watching("");
    let before = host.serving.process().peak_memory();
    sparse(&host.changed);
    host.ends("too-large", 1.0).await;
    fifo(&host.changed);
    host.ends("unreadable", 1.0).await;
    std::fs::remove_file(&host.changed).unwrap();
    host.ends("unreadable", 2.0).await;
    host.is_unchanged().await;
    host.recovers().await;
    // The other one as well.
    replace(&host.constant, &std::fs::read(guest("http-pages")).unwrap());
    host.serves_pages("/constant/page").await;
    let after = host.serving.process().peak_memory();
    assert!(after - before < GROWTH, "{before} to {after}");
    host.ends_with_lines(&["it has 3.0 GiB, more than 64.0 MiB", "it is not a regular file", "No such file"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_or_a_huge_file_at_the_start_ends_it_with_one_line() {
    for (put, words) in [(fifo as fn(&Path), "it is not a regular file"), (sparse, "more than 64.0 MiB")] {
        let larder = Larder::serve();
        let file = larder.folder().join("plugin.wasm");
        put(&file);
        let finished = larder.arg(&file).fail(1);
        assert!(finished.error_line().contains(words), "{}", finished.stderr);
    }
}

/// Both compile for as long as they may. The compiler has two places, of which another plugin needs one.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_compiles_long_is_given_up_and_keeps_no_other_from_being_reloaded() {
    let mut host = Host::watching("compile_timeout = \"8s\"\nmax_compile_memory = \"1GiB\"\n");
    let before = host.serving.process().peak_memory();
    replace(&host.changed, &long_to_compile());
    // It is being compiled.
    let started = Instant::now();
    while compilers(host.serving.process().id()).is_empty() {
        assert!(started.elapsed() < TEST_TIMEOUT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    replace(&host.constant, &std::fs::read(guest("http-pages")).unwrap());
    host.serves_pages("/constant/page").await;
    assert_eq!(host.loads("timed-out").await + host.loads("out-of-memory").await, 0.0, "it was quicker than the other");
    host.serving.process().signal("-HUP");
    let started = Instant::now();
    while host.loads("timed-out").await < 1.0 {
        assert!(started.elapsed() < TEST_TIMEOUT, "it is not given up");
        host.is_unchanged().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = host.serving.process().peak_memory();
    assert!(after - before < GROWTH, "{before} to {after}");
    let id = host.serving.process().id();
    let compiler = wait_for_compiler(id).await;
    host.serving.process().kill();
    // The kernel ends the compiler with the host.
    let started = Instant::now();
    while Path::new(&format!("/proc/{compiler}/exe")).read_link().is_ok() {
        assert!(started.elapsed() < TEST_TIMEOUT, "the compiler outlives its host");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A file of 48 MiB of data, whose compiled form has as much.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compiled_form_of_a_plugin_is_held_once() {
    const SIZE: u64 = 48 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(Larder::serve().arg("--watch").env("LARDER_COMPILED", folder.path()), "");
    let data = "x".repeat(usize::try_from(SIZE).unwrap());
    let large = format!(
        "(component (core module $m (memory 1024) (data (i32.const 0) \"{data}\")) (core instance (instantiate $m)))"
    );
    let large = wat::parse_str(large).unwrap();
    let before = host.serving.process().peak_memory();
    // Compiled, and then taken from disk. It answers no requests, so the other one stays.
    for outcome in ["compiled", "kept"] {
        let count = host.loads(outcome).await + 1.0;
        replace(&host.changed, &large);
        host.ends(outcome, count).await;
    }
    host.is_unchanged().await;
    let grown = host.serving.process().peak_memory() - before;
    println!("{} KiB", grown >> 10);
    // The file itself is in memory beside it.
    assert!(grown < SIZE + SIZE / 2, "{} KiB", grown >> 10);
    host.serving.terminate().await;
}

/// Another process of the system may end the compiler, and so may the system itself.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_is_killed_is_told_from_one_that_needs_too_much_memory() {
    let mut host = Host::watching("");
    replace(&host.changed, &long_to_compile());
    let compiler = wait_for_compiler(host.serving.process().id()).await;
    assert!(Command::new("kill").args(["-KILL", &compiler.to_string()]).status().unwrap().success());
    host.ends("killed", 1.0).await;
    assert_eq!(host.loads("out-of-memory").await, 0.0);
    host.is_unchanged().await;
    host.ends_with_lines(&["its compiler was killed (signal 9), by the system for lack of memory or by hand"]).await;
}

async fn wait_for_compiler(host: u32) -> u32 {
    let started = Instant::now();
    loop {
        if let Some(id) = compilers(host).first() {
            return *id;
        }
        assert!(started.elapsed() < TEST_TIMEOUT, "nothing is compiled");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The processes that a host has started.
fn compilers(host: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{host}/task")).unwrap();
    let of_task = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    of_task.flat_map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Functions of many branches, which take minutes to compile.
fn long_to_compile() -> Vec<u8> {
    let branches = "local.get 0 if local.get 1 local.set 0 else local.get 0 local.set 1 end ".repeat(20_000);
    let function = format!("(func (param i32 i32) {branches})");
    wat::parse_str(format!("(component (core module {}))", function.repeat(24))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_needs_more_than_the_pool_has_is_refused_and_the_others_are_served() {
    let host = Host::watching("");
    let module = |what: &str, count: usize| {
        let instances = "(core instance (instantiate $m))".repeat(count);
        wat::parse_str(format!("(component (core module $m {what}) {instances})")).unwrap()
    };
    let files = [
        ("(memory 1)", 64, "raise `max_memories`"),
        ("(table 1 funcref)", 512, "raise `max_core_instances`"),
        (&"(table 1 funcref)".repeat(64), 8, "raise `max_tables`"),
        ("(memory 2049)", 1, "raise `max_memory` of"),
    ];
    for ((what, count, _), done) in files.iter().zip([1.0, 2.0, 3.0, 4.0]) {
        replace(&host.changed, &module(what, *count));
        host.ends("over-limit", done).await;
    }
    host.is_unchanged().await;
    host.ends_with_lines(&files.map(|(_, _, words)| words)).await;
}

/// As many memories and tables as a component may have, in as many requests as there may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_plugin_that_needs_all_it_may_leave_room_for_another_plugin() {
    let larder = Larder::serve().config(
        "[plugins.greedy]\npath = \"greedy.wasm\"\nroute = \"/greedy\"\n
         [plugins.other]\npath = \"other.wasm\"\nroute = \"/other\"\n
         [serve]\nmax_concurrent_requests = 8\n[sandbox]\nmax_cpu_time = \"1m\"\ntimeout = \"1m\"\n",
    );
    std::fs::write(larder.folder().join("greedy.wasm"), greedy()).unwrap();
    std::fs::copy(guest("http"), larder.folder().join("other.wasm")).unwrap();
    let serving = ServeProcess::start_with(larder);
    let mut running = tokio::task::JoinSet::new();
    // An answered request counts a moment longer, so the other plugin needs room for more than one.
    for _ in 0..5 {
        let client = Client::connect(serving.address()).await;
        running.spawn(async move { client.get("/greedy").await });
    }
    for _ in 0..20 {
        assert_eq!(serving.get("/other/do/hello").await, HttpResponse::ok("hello\n"));
    }
    assert!(running.try_join_next().is_none(), "the requests of the other plugin are still running");
}

/// A plugin of 8 memories and 32 tables that computes without end at each request.
fn greedy() -> Vec<u8> {
    let text = format!(
        "(component
           (import \"wasi:http/types@0.2.0\" (instance $types
             (export \"incoming-request\" (type (sub resource)))
             (export \"response-outparam\" (type (sub resource)))))
           (alias export $types \"incoming-request\" (type $request))
           (alias export $types \"response-outparam\" (type $outparam))
           (core module $more (memory 1) {})
           (core module $m (func (export \"handle\") (param i32 i32) (loop (br 0))))
           (core instance $i (instantiate $m))
           {}
           (func $handle (param \"request\" (own $request)) (param \"response-out\" (own $outparam))
             (canon lift (core func $i \"handle\")))
           (instance $handler (export \"handle\" (func $handle)))
           (export \"wasi:http/incoming-handler@0.2.0\" (instance $handler)))",
        "(table 10 funcref)".repeat(4),
        "(core instance (instantiate $more))".repeat(8),
    );
    wat::parse_str(text).unwrap()
}
