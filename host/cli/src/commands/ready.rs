//! `larder ready`: a health check for containers that have neither a shell nor curl.

// Decision: docs/decisions/0041-larder-ready-is-a-subcommand.md

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use larder_host::cache::text::one_line;
use larder_host::{Config, Error};

use crate::metrics_url::MetricsUrl;

#[derive(Debug, Args)]
pub(crate) struct Ready {
    /// HOST:PORT or http://HOST:PORT/metrics of the host [default: `metrics_addr` of `[serve]`]
    #[arg(value_name = "ADDR")]
    url: Option<MetricsUrl>,
}

impl Ready {
    /// Prints the host's report. The configuration is read only if no address is given.
    pub(crate) async fn run(self, config: Option<&Path>) -> anyhow::Result<ExitCode> {
        let url = match self.url {
            Some(url) => url,
            None => MetricsUrl::from_config(&Config::load(config).map_err(Error::from)?)?,
        };
        let (is_ready, report) = url.readiness().await?;
        // The server may not be a host: escape terminal control sequences in its response.
        for line in report.lines() {
            writeln!(std::io::stdout(), "{}", one_line(line))?;
        }
        Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
