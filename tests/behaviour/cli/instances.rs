//! Several plugin instances in one host process: a vacancy never outlives the sandbox that holds it.

use std::sync::Arc;
use std::time::Duration;

use larder_host::Config;
use larder_host::cache::{Duration as Expire, Entry, ScopedCache};
use larder_host::runtime::{Plugin, RunOptions};
use larder_host::{Error, Runtime, operator_view};
use larder_tests::{TEST_TIMEOUT, guest};
use tokio::task::JoinSet;

/// A host with one RAM cache, whose `wait` is longer than the timeout of the tests.
struct Host {
    runtime: Arc<Runtime>,
    holder: Arc<Plugin>,
    script: Arc<Plugin>,
}

impl Host {
    async fn start(timeout: &str) -> Self {
        let config = format!("[caches.ram]\ntype = \"ram\"\nwait = \"10m\"\n[sandbox]\ntimeout = \"{timeout}\"\n");
        let runtime = Runtime::new(Config::from_toml(&config).unwrap()).await.unwrap();
        let holder = runtime.load(&guest("holder"), None).unwrap();
        let script = runtime.load(&guest("script"), None).unwrap();
        Self { runtime: Arc::new(runtime), holder: Arc::new(holder), script: Arc::new(script) }
    }

    /// The host's own view of the cache.
    fn view(&self) -> ScopedCache {
        operator_view(Arc::clone(self.runtime.caches().get("ram").unwrap()), None)
    }

    /// A holder that has its vacancy and waits for the word to end.
    async fn hold(&self, ending: &str, tasks: &mut JoinSet<Result<i32, Error>>) {
        let (runtime, plugin) = (Arc::clone(&self.runtime), Arc::clone(&self.holder));
        let options = RunOptions { args: vec![ending.to_owned()], ..RunOptions::default() };
        tasks.spawn(async move { runtime.run(&plugin, &options).await });
        let view = self.view();
        while view.get("held").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }

    /// Instances that ask for the key, and fill it where they get the vacancy.
    fn ask(&self, instances: usize, tasks: &mut JoinSet<Result<i32, Error>>) {
        for instance in 0..instances {
            let (runtime, plugin) = (Arc::clone(&self.runtime), Arc::clone(&self.script));
            let options = RunOptions { args: vec![format!("get-or-set slow {instance}")], ..RunOptions::default() };
            tasks.spawn(async move { runtime.run(&plugin, &options).await });
        }
    }

    async fn let_go(&self) {
        let view = self.view();
        view.set("go", "".into(), Expire::Default).await.unwrap();
    }

    async fn value(&self) -> String {
        let view = self.view();
        String::from_utf8(view.get("slow").await.unwrap().unwrap().to_vec()).unwrap()
    }
}

/// Waits for all instances and gives their outcomes, failures first.
async fn outcomes(mut tasks: JoinSet<Result<i32, Error>>) -> Vec<Result<i32, String>> {
    let mut outcomes = Vec::new();
    while let Some(outcome) = tokio::time::timeout(TEST_TIMEOUT, tasks.join_next()).await.expect("a call hangs") {
        outcomes.push(outcome.unwrap().map_err(|error| error.to_string()));
    }
    outcomes.sort_by_key(|outcome| outcome.is_ok());
    outcomes
}

/// The holder ends before it fills, and four later callers are served: one computes for all.
async fn a_vacancy_passes_on(ending: &str) -> Result<i32, String> {
    let host = Host::start("1m").await;
    let mut tasks = JoinSet::new();
    host.hold(ending, &mut tasks).await;
    host.ask(4, &mut tasks);
    host.let_go().await;
    let mut outcomes = outcomes(tasks).await;
    assert_eq!(outcomes.len(), 5);
    let first = outcomes.remove(outcomes.iter().position(|outcome| *outcome != Ok(0)).unwrap_or(0));
    assert!(outcomes.iter().all(|outcome| *outcome == Ok(0)), "{outcomes:?}");
    assert!(["0", "1", "2", "3"].contains(&host.value().await.as_str()));
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_passes_the_vacancy_on() {
    assert!(a_vacancy_passes_on("panic").await.unwrap_err().contains("plugin `holder` trapped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_passes_the_vacancy_on() {
    // In WASI 0.2, the host receives only that a plugin failed, without the status.
    assert_eq!(a_vacancy_passes_on("exit").await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_vacancy_passes_to_the_next_caller() {
    assert_eq!(a_vacancy_passes_on("drop").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_passes_the_vacancy_on() {
    let host = Host::start("2s").await;
    let mut tasks = JoinSet::new();
    host.hold("spin", &mut tasks).await;
    host.let_go().await;
    let view = host.view();
    // This caller waits until the holder is stopped, and then gets the vacancy.
    let entry = tokio::time::timeout(TEST_TIMEOUT, view.get_or_set("slow")).await.expect("the wait ends").unwrap();
    assert!(matches!(entry, Entry::Vacant(_)), "{entry:?}");
    let stopped = outcomes(tasks).await.remove(0).unwrap_err();
    assert!(stopped.contains("ran longer than 2s"), "{stopped}");
}

/// 20,000 instructions without a loop or a call between them, which would take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_instructions_that_fill_memory_are_stopped_in_between() {
    let config = "[sandbox]\ntimeout = \"1s\"\nmax_cpu_time = \"1m\"\n";
    let runtime = Runtime::new(Config::from_toml(config).unwrap()).await.unwrap();
    let fills = "i32.const 0 i32.const 1 i32.const 134217728 memory.fill ".repeat(20_000);
    let component = wat::parse_str(format!(
        "(component (core module $m (memory 2048) (func (export \"f\") {fills})) (core instance $i (instantiate $m))
         (func (export \"f\") (canon lift (core func $i \"f\"))))"
    ));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fill.wasm");
    std::fs::write(&file, component.unwrap()).unwrap();
    let plugin = runtime.load(&file, None).unwrap();
    let options = RunOptions::default();
    let run = tokio::time::timeout(TEST_TIMEOUT, runtime.invoke(&plugin, &options, "f()"));
    let stopped = run.await.expect("it is stopped in between").unwrap_err().to_string();
    assert!(stopped.contains("ran longer than 1s"), "{stopped}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_serves_all_waiters() {
    let host = Host::start("1m").await;
    let mut tasks = JoinSet::new();
    host.hold("fill", &mut tasks).await;
    host.ask(8, &mut tasks);
    host.let_go().await;
    assert!(outcomes(tasks).await.iter().all(|outcome| *outcome == Ok(0)));
    assert_eq!(host.value().await, "held's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_run_passes_the_vacancy_on() {
    let host = Host::start("1m").await;
    let mut tasks = JoinSet::new();
    host.hold("spin", &mut tasks).await;
    // As when the client of a request goes away: the future is dropped in the middle.
    tasks.abort_all();
    let view = host.view();
    let entry = tokio::time::timeout(Duration::from_secs(30), view.get_or_set("slow")).await.expect("the wait ends");
    assert!(matches!(entry, Ok(Entry::Vacant(_))), "{entry:?}");
}
