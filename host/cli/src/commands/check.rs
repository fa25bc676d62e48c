//! `larder check`.

use std::io::Write;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use larder_host::config::{BackendConfig, CacheConfig, Config};
use larder_host::{Error, connect_cache};

use crate::log_line::print_error;

/// Connects to every cache and prints a table. Succeeds only if every cache can be reached.
pub(crate) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "NAME",
        "TYPE",
        "ADDRESS",
        "SERVER",
        "ROUND TRIP",
        "SUPPORTS",
        "STATUS",
    ]);
    let mut failures = Vec::new();
    for (name, cache) in &config.caches {
        let (kind, address) = describe(cache);
        let ([server, round_trip, supports], status) = match check(name, cache).await {
            Ok(cells) => (cells, "ok"),
            Err(error) => {
                failures.push(error);
                ([(); 3].map(|()| "-".to_owned()), "failed")
            }
        };
        let label = if *name == config.default { format!("{name} (default)") } else { name.clone() };
        table.add_row([label.as_str(), kind, &address, &server, &round_trip, &supports, status]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    writeln!(std::io::stdout(), "{}", table.trim_fmt())?;
    for error in &failures {
        print_error(&error.to_string());
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Connects to a cache. Returns the cells SERVER, ROUND TRIP and SUPPORTS.
async fn check(name: &str, config: &CacheConfig) -> Result<[String; 3], Error> {
    let cache = connect_cache(name, &config.clone().required()).await?;
    let health = cache.check().await.map_err(|reason| Error::Cache { cache: name.to_owned(), reason })?;
    let server = format!("{} {}", health.kind, health.version);
    let round_trip = health.round_trip.map_or("-".to_owned(), |time| format!("{:.2} ms", time.as_secs_f64() * 1e3));
    let supports = if health.supports.is_empty() { "-".to_owned() } else { health.supports.join(", ") };
    Ok([server.trim_end().to_owned(), round_trip, supports])
}

/// The cells TYPE and ADDRESS of a cache, without secrets.
fn describe(config: &CacheConfig) -> (&'static str, String) {
    match &config.backend {
        BackendConfig::Ram { max_bytes, .. } => ("ram", format!("{} in this process", bytesize::ByteSize(*max_bytes))),
        BackendConfig::Server(options) => {
            let tls = if options.tls.is_some() { " (TLS)" } else { "" };
            let address = format!("{}/{} {}{tls}", options.deployment, options.db, options.prefix);
            (options.kind.type_name(), address)
        }
        _ => ("unknown", "-".to_owned()),
    }
}
