//! Startup: the whole life of a `larder run` process, and the instance that each request gets.

use std::process::{Command, Stdio};
use std::time::Instant;

use larder_host::Caches;
use larder_tests::{guest, program};

use crate::backend::Backend;
use crate::plugin::Plugin;
use crate::table;

/// Times `larder run` of a small plugin, from the start of the process to its exit.
pub(crate) async fn processes() {
    table::heading("From a process's start to its end");
    let folder = tempfile::tempdir().unwrap();
    let run = |compiled: &std::ffi::OsStr| {
        let mut larder = Command::new(program());
        larder.arg("run").arg(guest("hello-cache")).env("LARDER_COMPILED", compiled).current_dir(folder.path());
        larder
    };
    let passes = table::interleave(3, 15, async |candidate| {
        let mut command = match candidate {
            0 => Command::new("true"),
            1 => run(folder.path().as_os_str()),
            _ => run("off".as_ref()),
        };
        let start = Instant::now();
        let status = command.stdout(Stdio::null()).status().unwrap();
        let seconds = start.elapsed().as_secs_f64();
        assert!(status.success(), "{status}");
        seconds
    });
    table::candidates("", &["true", "larder run, compiled before", "larder run, compiling"], &passes.await);
}

/// Times the creation and dropping of an instance with its store and memory, as for each request of `larder serve`.
pub(crate) async fn instances() {
    table::heading("An instance of a plugin, made and dropped");
    let caches = Caches::connect(Backend::ram().config("")).await.unwrap();
    let plugins = [true, false].map(|is_pooled| Plugin::new(caches.clone(), is_pooled));
    let passes = table::interleave(plugins.len(), 21, async |candidate| {
        const INSTANCES: u32 = 200;
        let start = Instant::now();
        for _ in 0..INSTANCES {
            drop(plugins[candidate].instantiate().await);
        }
        start.elapsed().as_secs_f64() / f64::from(INSTANCES)
    });
    table::candidates("", &["memory set aside (serve)", "memory asked for"], &passes.await);
}
