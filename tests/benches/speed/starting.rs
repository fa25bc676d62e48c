//! What it takes to begin: the program from its start to its exit, and an instance for each request.

use std::process::{Command, Stdio};
use std::time::Instant;

use larder_host::Caches;
use larder_tests::{guest, program};

use crate::place::Place;
use crate::plugin::Plugin;
use crate::table;

/// `larder run` of a small plugin, from the start of the process to its end.
pub(crate) async fn programs() {
    table::heading("From a process's start to its end");
    let folder = tempfile::tempdir().unwrap();
    let run = |compiled: &std::ffi::OsStr| {
        let mut larder = Command::new(program());
        larder.arg("run").arg(guest("hello-cache")).env("LARDER_COMPILED", compiled).current_dir(folder.path());
        larder
    };
    let passes = table::in_turns(3, 15, async |way| {
        let mut command = match way {
            0 => Command::new("true"),
            1 => run(folder.path().as_os_str()),
            _ => run("off".as_ref()),
        };
        let begun = Instant::now();
        let status = command.stdout(Stdio::null()).status().unwrap();
        let took = begun.elapsed().as_secs_f64();
        assert!(status.success(), "{status}");
        took
    });
    table::ways("", &["true", "larder run, compiled before", "larder run, compiling"], &passes.await);
}

/// An instance as each request of `larder serve` has one of its own: its store, its memory, its end.
pub(crate) async fn instances() {
    table::heading("An instance of a plugin, made and dropped");
    let caches = Caches::connect(Place::ram().config("")).await.unwrap();
    let plugins = [true, false].map(|is_pooled| Plugin::new(caches.clone(), is_pooled));
    let passes = table::in_turns(plugins.len(), 21, async |way| {
        const INSTANCES: u32 = 200;
        let begun = Instant::now();
        for _ in 0..INSTANCES {
            drop(plugins[way].start().await);
        }
        begun.elapsed().as_secs_f64() / f64::from(INSTANCES)
    });
    table::ways("", &["memory set aside (serve)", "memory asked for"], &passes.await);
}
