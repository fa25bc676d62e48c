//! A program that uses Larder's engine, linker and sandbox: `embed-runtime PLUGIN.wasm`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use larder_host::runtime::RunOptions;
use larder_host::{Config, Runtime, operator_view};

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: embed-runtime PLUGIN.wasm")?;

    let config = Config::from_toml(
        r#"
        [caches.ram]
        type = "ram"

        [sandbox]
        max_memory = "64MiB"
        timeout = "10s"
        "#,
    )?;
    let runtime = Runtime::new(config).await?;
    let plugin = runtime.load(Path::new(&path), Some("plugin"))?;
    for run in 1..=2 {
        println!("run {run}");
        let status = runtime.run(&plugin, &RunOptions::default()).await?;
        anyhow::ensure!(status == 0, "the plugin failed");
    }

    // The program itself reads the statistics and clears the cache.
    let cache = runtime.caches().get("ram").context("there is no cache `ram`")?;
    println!("computed: {}", cache.stats().computed);
    let cleared = operator_view(Arc::clone(cache), None).clear_all().await?;
    println!("cleared: {cleared}");

    // Wait until the leases of unfinished computations are released.
    runtime.caches().drain().await;
    Ok(())
}
