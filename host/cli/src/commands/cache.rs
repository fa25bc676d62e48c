//! `larder cache …`: an operator looks into a cache and purges it, through the same code as the plugins.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use larder_host::cache::{CacheError, Duration, Namespace, OnOutage, ScopedCache};
use larder_host::config::{BackendConfig, Config, parse_duration};
use larder_host::{Error, connect_cache, operator_view};

#[derive(Debug, Args)]
pub(crate) struct CacheCommand {
    /// The cache; else the default one.
    #[arg(long, value_name = "NAME", global = true)]
    cache: Option<String>,
    /// The key space of a plugin with this namespace; else the shared one.
    #[arg(long, value_name = "NAMESPACE", global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// Print a key's bytes as they are; exit status 1 on a miss.
    Get {
        /// The key.
        key: String,
    },
    /// Store bytes.
    Set {
        /// The key.
        key: String,
        /// The value; `-` reads standard input.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// How long it may be served, as in `30s` or `unlimited`; else the cache's `default_expire`.
        #[arg(long, value_parser = parse_duration)]
        duration: Option<Duration>,
    },
    /// Remove one key; exit status 1 where it held no value.
    Clear {
        /// The key.
        key: String,
    },
    /// Remove the keys that match a Redis glob, and print how many.
    ClearPattern {
        /// The pattern.
        pattern: String,
    },
    /// Remove all keys of the key space, and print how many.
    ClearAll,
}

impl CacheCommand {
    pub(crate) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let name = self.cache.as_ref().unwrap_or(&config.default);
        let Some(cache) = config.caches.get(name) else {
            return Err(Error::Option(format!("there is no cache `{name}`")).into());
        };
        if matches!(cache.backend, BackendConfig::Ram { .. }) {
            let reason =
                format!("cache `{name}` is in RAM: each process has its own, and this one has none to look into");
            return Err(Error::Option(reason).into());
        }
        let namespace = self.namespace.as_deref().map(Namespace::new).transpose().map_err(usage)?;
        // Plugins may go on without a cache; who looks into it must not take an outage for a miss.
        let mut honest = cache.clone();
        honest.policy.on_outage = OnOutage::Error;
        let cache = operator_view(connect_cache(name, &honest).await?, namespace);
        self.operation.run(&cache).await
    }
}

impl Operation {
    async fn run(self, cache: &ScopedCache) -> anyhow::Result<ExitCode> {
        let named = |error: CacheError| match error {
            CacheError::InvalidArgument(_) | CacheError::ValueTooLarge { .. } => usage(error),
            reason => Error::Cache { cache: cache.name().to_owned(), reason },
        };
        let mut stdout = std::io::stdout();
        match self {
            Self::Get { key } => match cache.get(&key).await.map_err(named)? {
                Some(value) => {
                    stdout.write_all(&value)?;
                    stdout.flush()?;
                }
                None => {
                    eprintln!("larder: no value");
                    return Ok(ExitCode::FAILURE);
                }
            },
            Self::Set { key, value, duration } => {
                let value = if value == "-" { read_stdin()? } else { value.into_bytes() };
                cache.set(&key, value.into(), duration.unwrap_or(Duration::Default)).await.map_err(named)?;
            }
            Self::Clear { key } => {
                if !cache.clear(&key).await.map_err(named)? {
                    eprintln!("larder: no value");
                    return Ok(ExitCode::FAILURE);
                }
            }
            Self::ClearPattern { pattern } => {
                writeln!(stdout, "{}", cache.clear_pattern(&pattern).await.map_err(named)?)?;
            }
            Self::ClearAll => writeln!(stdout, "{}", cache.clear_all().await.map_err(named)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn usage(error: CacheError) -> Error {
    Error::Option(error.to_string())
}

/// Standard input as a value, not read further than any cache would take.
fn read_stdin() -> anyhow::Result<Vec<u8>> {
    const MOST: u64 = 512 << 20;
    let mut value = Vec::new();
    std::io::stdin().lock().take(MOST + 1).read_to_end(&mut value).context("cannot read standard input")?;
    if value.len() as u64 > MOST {
        bail!("standard input is over 512MiB, which no server takes");
    }
    Ok(value)
}
