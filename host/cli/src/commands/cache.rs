//! `larder cache`: inspects and purges a server cache, through the same code as the plugins.

mod keys;
mod outcome;
mod progress;

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use larder_host::cache::{CacheError, Duration, KeyState, Namespace, OnOutage, ScopedCache};
use larder_host::config::{BackendConfig, Config, parse_duration};
use larder_host::{Error, connect_cache, operator_view};

use crate::json;
use crate::log_line::print_error;
use outcome::Outcome;

#[derive(Debug, Args)]
pub(crate) struct CacheCommand {
    /// Cache to use [default: the default cache]
    #[arg(long, value_name = "NAME", global = true)]
    cache: Option<String>,
    /// Key space of the plugins with this namespace [default: that of plugins without one]
    #[arg(long, value_name = "NAMESPACE", global = true)]
    namespace: Option<String>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// Print a value as stored; exit with 1 on a miss.
    Get {
        /// Key of the value
        key: String,
    },
    /// Print what a key holds: the size and the remaining life of its value, or a lease; exit with 1 for nothing.
    Info {
        /// Key to look at
        key: String,
    },
    /// Print the names of all keys with a value, or of those that match a Redis glob.
    Keys(keys::Keys),
    /// Store a value.
    Set {
        /// Key of the value
        key: String,
        /// Value to store; `-` reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Time until the value expires, such as `30s` or `unlimited` [default: `default_expire` of the cache]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        duration: Option<Duration>,
    },
    /// Remove one key; exit with 1 if it had no value.
    Clear {
        /// Key to remove
        key: String,
    },
    /// Remove all keys that match a Redis glob, and print their number.
    ClearPattern {
        /// Redis glob; quote it, so that the shell does not expand it
        pattern: String,
    },
    /// Remove all keys of the key space, and print their number.
    ClearAll,
}

impl CacheCommand {
    pub(crate) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let name = self.cache.as_ref().unwrap_or(&config.default);
        let cache = config.cache(name).map_err(Error::Option)?;
        if matches!(cache.backend, BackendConfig::Ram { .. }) {
            let message = format!(
                "cache `{name}` is a RAM cache: only the process that has it can reach it; name a server cache with \
                 `--cache`"
            );
            return Err(Error::Option(message).into());
        }
        let namespace = self.namespace.as_deref().map(Namespace::new).transpose().map_err(usage)?;
        // An operator must not mistake an outage for a miss.
        let mut strict = cache.clone().required();
        strict.policy.on_outage = OnOutage::Error;
        let cache = operator_view(connect_cache(name, &strict).await?, namespace);
        self.operation.run(&cache, self.json).await
    }
}

impl Operation {
    async fn run(self, cache: &ScopedCache, is_json: bool) -> anyhow::Result<ExitCode> {
        let result = match self.call(cache, is_json).await? {
            Some(result) => result,
            None => return Ok(ExitCode::SUCCESS),
        };
        let status = if result.is_miss() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        if is_json {
            json::print(&result.object(cache.name()))?;
            return Ok(status);
        }
        let mut stdout = std::io::stdout();
        match result {
            Outcome::Found(value) => {
                stdout.write_all(&value)?;
                // The prompt of a shell is to begin a line.
                if stdout.is_terminal() && !value.ends_with(b"\n") {
                    stdout.write_all(b"\n")?;
                }
                stdout.flush()?;
            }
            Outcome::State(state) if state != KeyState::Empty => writeln!(stdout, "{}", outcome::in_words(state))?,
            Outcome::Missing | Outcome::NothingCleared | Outcome::State(_) => print_error("no value"),
            Outcome::Stored | Outcome::Cleared => {}
            Outcome::ClearedMany(count) => writeln!(stdout, "{count}")?,
        }
        Ok(status)
    }

    /// Calls the cache. Returns `None` if the operation has printed its result.
    async fn call(self, cache: &ScopedCache, is_json: bool) -> anyhow::Result<Option<Outcome>> {
        let to_error = |error: CacheError| to_error(cache, error);
        Ok(Some(match self {
            Self::Keys(keys) => {
                keys.run(cache, is_json).await?;
                return Ok(None);
            }
            Self::Info { key } => Outcome::State(cache.describe(&key).await.map_err(to_error)?),
            Self::Get { key } => cache.get(&key).await.map_err(to_error)?.map_or(Outcome::Missing, Outcome::Found),
            Self::Set { key, value, duration } => {
                let value = if value == "-" { read_stdin()? } else { value.into_bytes() };
                cache.set(&key, value.into(), duration.unwrap_or(Duration::Default)).await.map_err(to_error)?;
                Outcome::Stored
            }
            Self::Clear { key } if cache.clear(&key).await.map_err(to_error)? => Outcome::Cleared,
            Self::Clear { .. } => Outcome::NothingCleared,
            Self::ClearPattern { pattern } => {
                Outcome::ClearedMany(progress::clear(cache, Some(&pattern)).await.map_err(to_error)?)
            }
            Self::ClearAll => Outcome::ClearedMany(progress::clear(cache, None).await.map_err(to_error)?),
        }))
    }
}

/// The error of an operation: one of its arguments, or of the cache.
fn to_error(cache: &ScopedCache, error: CacheError) -> Error {
    match error {
        CacheError::InvalidArgument(_) | CacheError::ValueTooLarge { .. } => usage(error),
        reason => Error::Cache { cache: cache.name().to_owned(), reason },
    }
}

fn usage(error: CacheError) -> Error {
    Error::Option(error.to_string())
}

/// Reads a value from stdin.
fn read_stdin() -> anyhow::Result<Vec<u8>> {
    /// The maximum size of a value on Valkey and Redis, in bytes.
    const MAX: u64 = 512 << 20;
    let mut value = Vec::new();
    std::io::stdin().lock().take(MAX + 1).read_to_end(&mut value).context("cannot read stdin")?;
    if value.len() as u64 > MAX {
        bail!("the value on stdin is over 512MiB, the limit of Valkey and Redis");
    }
    Ok(value)
}
