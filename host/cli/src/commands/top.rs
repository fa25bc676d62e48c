//! `larder top`: the metrics of a host, as a live dashboard or as tables.

mod columns;
mod dashboard;
mod exposition;
mod help;
mod json;
mod latency;
mod plugins;
mod screen;
mod snapshot;
mod stats;
pub(super) mod summary;
mod table;
mod view;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use larder_host::cache::Duration as CacheDuration;
use larder_host::config::parse_duration;
use larder_host::{Config, Error};

use crate::metrics_url::MetricsUrl;
use crate::operator::Operator;
use snapshot::Snapshot;
use stats::Stats;

/// The minimum interval, so that scrapes do not load the host.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print tables after one interval, and exit
    #[arg(long)]
    once: bool,
    /// Print one JSON object instead of tables
    #[arg(long, requires = "once")]
    json: bool,
    /// Refresh interval, at least 100ms; rates are averaged over it
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// HOST:PORT or http://HOST:PORT/metrics of the host [default: `metrics_addr` of `[serve]`]
    #[arg(value_name = "ADDR")]
    url: Option<MetricsUrl>,
}

impl Top {
    /// The configuration is read only if no address is given: the host may be on another machine.
    pub(crate) async fn run(self, config: Option<&Path>, operator: &Operator) -> anyhow::Result<ExitCode> {
        let Self { once, json, interval, url } = self;
        let url = match url {
            Some(url) => url,
            None => MetricsUrl::from_config(&Config::load(config).map_err(Error::from)?)?,
        };
        if once {
            return print_once(&url, interval, json).await;
        }
        if !std::io::stdout().is_terminal() {
            bail!("stdout is not a terminal: use `larder top --once`");
        }
        dashboard::run(url, interval, operator).await
    }
}

/// Scrapes twice, one interval apart, and prints tables or an object.
async fn print_once(url: &MetricsUrl, interval: Duration, is_json: bool) -> anyhow::Result<ExitCode> {
    let first = Snapshot::scrape(url).await?;
    let start = Instant::now();
    tokio::time::sleep(interval).await;
    let second = Snapshot::scrape(url).await?;
    let elapsed = start.elapsed();
    let stats = Stats::new(&second, Some((&first, elapsed)));
    if is_json {
        crate::json::print(&json::object(&stats, elapsed))?;
    } else {
        writeln!(std::io::stdout(), "{}", table::tables(&stats, &url.to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        CacheDuration::Milliseconds(interval) if Duration::from_millis(interval) >= MIN_INTERVAL => {
            Ok(Duration::from_millis(interval))
        }
        _ => Err(format!("must be at least {MIN_INTERVAL:?}, such as \"2s\"")),
    }
}
