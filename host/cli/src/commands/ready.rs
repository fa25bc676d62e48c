//! `larder ready`: the health check of a container that has neither a shell nor curl.

// Decision: docs/decisions/0041-larder-ready-is-a-subcommand.md

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use larder_host::cache::text::one_line;
use larder_host::{Config, Error};

use super::top::configured;
use super::top::scrape::Endpoint;

#[derive(Debug, Args)]
pub(crate) struct Ready {
    /// What `larder serve --metrics-addr` listens on, as HOST:PORT or http://HOST:PORT/metrics; else `metrics_addr` of
    /// `[serve]`.
    #[arg(value_name = "ADDR")]
    endpoint: Option<Endpoint>,
}

impl Ready {
    /// Prints a line for each cache; fails unless the host is ready. Needs no configuration where the address is given.
    pub(crate) async fn run(self, config: Option<&Path>) -> anyhow::Result<ExitCode> {
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => configured(&Config::load(config).map_err(Error::from)?)?,
        };
        let (is_ready, why) = endpoint.readiness().await?;
        // Line by line, for whoever answers need not be a host, and may send what a terminal would obey.
        for line in why.lines() {
            writeln!(std::io::stdout(), "{}", one_line(line))?;
        }
        Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
