//! A plugin that keeps what is its own process's affair in RAM, and what all processes share in Valkey.

use larder::Cache;

fn main() -> Result<(), larder::Error> {
    // The operator's default, here in this process's memory: quick, and gone with the process.
    let ram = Cache::default()?;
    // On the server: shared with every process that names the same server and prefix.
    let shared = Cache::open("valkey")?;

    let runs: u32 = shared.get("runs")?.unwrap_or(0) + 1;
    shared.set("runs", &runs)?;
    let runs_here: u32 = ram.get("runs")?.unwrap_or(0) + 1;
    ram.set("runs", &runs_here)?;

    println!("runs of this plugin in this process: {runs_here}, in all processes: {runs}");
    Ok(())
}
