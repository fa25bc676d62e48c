//! Load tests of `larder serve`, in the release build.
//!
//! - `compare`: throughput, latency and processor time, in turns with `wasmtime serve` and the same component.
//! - `concurrent`: the same for a component of WASI 0.3.
//! - `cached`: hits and computations of a value that two processes cache for a second on one Valkey server.
//! - `memory`: memory over many requests, and after many at once.
//! - `scale`: what a request uses by the number of worker threads, and look-ups in RAM by threads.
//!
//! `make bench-serve` runs all, and `make bench-serve PART=scale` a part. `WASMTIME` is the path of the `wasmtime` program
//! to compare with, `LARDER_PROGRAM` that of another build to measure, and `LARDER_BEFORE` that of one to compare with.
//! `REQUESTS` is the number of requests of the memory test. `LARDER_RESULTS` names the results file.

#![allow(missing_docs, reason = "a benchmark is not a library")]

mod cached;
mod compare;
mod cores;
mod hosts;
mod load;
mod memory;
mod scale;
mod usage;

// Shared with the benchmarks of `speed`, each of which needs a part of them.
#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "../speed/keys.rs"]
mod keys;
#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "../speed/other_caches.rs"]
mod other_caches;
#[path = "../speed/results_file.rs"]
mod results_file;
#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "../speed/table.rs"]
mod table;

use larder_tests::Kind;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`. `cargo test --all-targets` also runs this program, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: run the benchmarks with `cargo bench`");
        return;
    }
    let part = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.is_none_or(|part| part == name);
    if is_wanted("compare") {
        compare::hello();
        compare::hit();
    }
    if is_wanted("concurrent") {
        compare::concurrent();
    }
    if is_wanted("cached") {
        cached::cached();
    }
    if is_wanted("memory") {
        memory::memory();
    }
    if is_wanted("scale") {
        scale::workers();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(scale::threads());
    }
    // The program and its version, without what Valkey adds.
    let version = |program: std::ffi::OsString| {
        let output = results_file::output_of(program, &["--version"]);
        output.split_whitespace().take_while(|word| !word.starts_with("sha=")).collect::<Vec<_>>().join(" ")
    };
    let theirs = std::env::var_os("WASMTIME").filter(|program| !program.is_empty());
    let theirs = theirs.map(|program| format!("compared with {}", version(program)));
    let versions = [version(Kind::Valkey.program().into())].into_iter().chain(theirs).collect();
    results_file::write(table::results(), versions);
}
