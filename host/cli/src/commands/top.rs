//! `larder top`: the figures of a host, on a screen that follows them or as one table.

mod columns;
mod exposition;
mod latency;
mod reading;
pub(super) mod scrape;
mod screen;
mod snapshot;
mod table;
mod view;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use larder_host::cache::Duration as Span;
use larder_host::config::parse_duration;
use larder_host::{Config, Error};

use reading::Reading;
use scrape::Endpoint;

/// The shortest interval: a host has other things to do than to tell how it is.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print one table and exit; its rates are over one interval.
    #[arg(long)]
    once: bool,
    /// How often to look, and what rates are over; at least `100ms`.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// What `larder serve --metrics-addr` listens on, as HOST:PORT or http://HOST:PORT/metrics; else `metrics_addr` of
    /// `[serve]`.
    #[arg(value_name = "ADDR")]
    endpoint: Option<Endpoint>,
}

impl Top {
    /// Needs no configuration where the address is given, since the host may be elsewhere.
    pub(crate) async fn run(self, config: Option<&Path>) -> anyhow::Result<ExitCode> {
        let Self { once, interval, endpoint } = self;
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => configured(&Config::load(config).map_err(Error::from)?)?,
        };
        if once {
            return print(&endpoint, interval).await;
        }
        if !std::io::stdout().is_terminal() {
            bail!("standard output is no terminal: `larder top --once` prints a table");
        }
        watch::watch(endpoint, interval).await
    }
}

/// Where the host of this configuration tells its figures.
pub(super) fn configured(config: &Config) -> Result<Endpoint, Error> {
    match config.serve.metrics_addr {
        Some(listening) if listening.port() != 0 => Ok(listening.into()),
        Some(_) => Err(Error::Option(
            "`metrics_addr` of `[serve]` takes a free port: name the one that `larder serve` has printed, as in \
             `127.0.0.1:9092`"
                .to_owned(),
        )),
        None => Err(Error::Option(
            "there is no host to look at: name what `larder serve --metrics-addr` listens on, as in \
             `127.0.0.1:9092`, or set `metrics_addr` of `[serve]` in the configuration"
                .to_owned(),
        )),
    }
}

/// Looks twice and prints a table.
async fn print(endpoint: &Endpoint, interval: Duration) -> anyhow::Result<ExitCode> {
    let first = endpoint.scrape().await?;
    let began = Instant::now();
    tokio::time::sleep(interval).await;
    let second = endpoint.scrape().await?;
    let reading = Reading::new(&second, Some((&first, began.elapsed())));
    writeln!(std::io::stdout(), "{}", table::table(&reading))?;
    Ok(ExitCode::SUCCESS)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Span::Milliseconds(span) if Duration::from_millis(span) >= SHORTEST => Ok(Duration::from_millis(span)),
        _ => Err(format!("must be from {SHORTEST:?} on, such as \"2s\"")),
    }
}
