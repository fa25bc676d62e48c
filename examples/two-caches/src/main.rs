//! A plugin with two caches: one in RAM for its own process, and one in Valkey for all processes.

use larder::Cache;

fn main() -> Result<(), larder::Error> {
    // The operator's default cache, here in RAM: fast, and lost when the process ends.
    let ram = Cache::default()?;
    // A server cache: shared by all processes that use the same server and prefix.
    let shared = Cache::open("valkey")?;

    let runs: u32 = shared.get("runs")?.unwrap_or(0) + 1;
    shared.set("runs", &runs)?;
    let runs_here: u32 = ram.get("runs")?.unwrap_or(0) + 1;
    ram.set("runs", &runs_here)?;

    println!("runs of this plugin in this process: {runs_here}, in all processes: {runs}");
    Ok(())
}
