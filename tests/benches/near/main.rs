//! Benchmarks of the near tier.
//!
//! - `hits`: hits from a plugin beside those of a RAM cache, and native ones beside the client-side cache of the Redis client.
//! - `changes`: the time from a write in one process until another one does not serve the old value any more.
//! - `idle`: the commands that an idle host sends.
//! - `serve`: `larder serve` with keys from a Zipf distribution, with and without a near tier.
//! - `scale`: what 1 to 200 hosts cost the server, which connections simulate, in both modes of client tracking.
//!
//! `make bench-near` runs all, and `make bench-near PART=hits` a part. `LARDER_RESULTS` names the results file. The
//! benchmarks start their own servers on loopback.

#![allow(missing_docs, reason = "a benchmark is not a library")]

mod changes;
mod hits;
mod idle;
mod scale;
mod serve;

// Shared with the other benchmarks, each of which needs a part of them.
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../speed/backend.rs"]
mod backend;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../serve/cores.rs"]
mod cores;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../serve/hosts.rs"]
mod hosts;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../speed/keys.rs"]
mod keys;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../serve/load.rs"]
mod load;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../speed/other_caches.rs"]
mod other_caches;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../speed/plugin.rs"]
mod plugin;
#[path = "../speed/results_file.rs"]
mod results_file;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../speed/table.rs"]
mod table;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../serve/usage.rs"]
mod usage;

use larder_tests::{Kind, Server};
use tokio::runtime::Builder;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`. `cargo test --all-targets` also runs this program, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: run the benchmarks with `cargo bench`");
        return;
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    if let [.., flag, toml] = arguments.as_slice()
        && flag == changes::WRITER
    {
        return runtime.block_on(changes::write(toml));
    }
    let part = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.is_none_or(|part| part == name);
    if is_wanted("hits") {
        runtime.block_on(hits::hits());
    }
    if is_wanted("changes") {
        runtime.block_on(changes::changes());
    }
    if is_wanted("idle") {
        runtime.block_on(idle::idle());
    }
    if is_wanted("serve") {
        serve::zipf();
    }
    if is_wanted("scale") {
        runtime.block_on(scale::scale());
    }
    let kernel = format!("Linux {}", results_file::output_of("uname", &["-r"]));
    let servers = servers().map(|server| version(&server));
    results_file::write(table::results(), std::iter::once(kernel).chain(servers).collect());
}

/// A Valkey and a Redis server, those of them that are installed.
fn servers() -> impl Iterator<Item = Server> {
    [Kind::Valkey, Kind::Redis].into_iter().filter_map(Server::start)
}

/// The product and version of a server.
fn version(server: &Server) -> String {
    let info: String = redis::cmd("INFO").arg("server").query(&mut server.client()).unwrap();
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (field("valkey_version:"), field("redis_version:")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, version) => format!("Redis {}", version.unwrap_or_default()),
    }
}

/// A number in a section of a server's `INFO`.
fn info(client: &mut redis::Connection, section: &str, name: &str) -> u64 {
    let info: String = redis::cmd("INFO").arg(section).query(client).unwrap();
    let number = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no `{name}` in {info}"))
}
