//! `larder check`: connects to every cache as a host does, and inspects its servers.

mod findings;
mod json;
mod plugins;
mod table;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use larder_host::cache::valkey::{CommandReport, Inspection, ServerOptions, ServerRegistry, inspect};
use larder_host::cache::{Access, CacheError, Health, NearOptions};
use larder_host::config::{BackendConfig, CacheConfig, Config};
use larder_host::{Error, connect_registered};

use crate::log_line::print_error;
use findings::Finding;
use plugins::CheckedPlugin;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug)]
struct Checked<'a> {
    /// `None` if there is no file, so that the defaults apply.
    file: Option<&'a Path>,
    config: &'a Config,
    caches: Vec<CheckedCache<'a>>,
    plugins: Vec<CheckedPlugin<'a>>,
}

impl Checked<'_> {
    fn is_ok(&self) -> bool {
        self.caches.iter().all(CheckedCache::is_ok) && self.plugins.iter().all(|plugin| plugin.problem.is_none())
    }
}

/// What was found about one cache.
#[derive(Debug)]
struct CheckedCache<'a> {
    name: &'a str,
    is_default: bool,
    config: &'a CacheConfig,
    /// Whether a plugin may write to it.
    has_writers: bool,
    /// `None` if the host cannot use the cache.
    health: Option<Health>,
    /// `None` for RAM.
    inspection: Option<Inspection>,
    /// Each is a reason for the status `failed`.
    problems: Vec<Finding>,
    advice: Vec<Finding>,
}

impl Check {
    /// Connects to every cache and prints what it found. Succeeds only if no cache and no plugin's file has a problem.
    /// `file` is that of the configuration.
    pub(crate) async fn run(self, config: &Config, file: Option<&Path>) -> anyhow::Result<ExitCode> {
        let registry = ServerRegistry::default();
        let mut caches = Vec::new();
        // As long as a cache is connected, its server is compared with those of the others.
        let mut connected = Vec::new();
        for (name, cache) in &config.caches {
            let connection = async {
                let cache = connect_registered(name, &cache.clone().required(), &registry).await?;
                let failed = |reason: CacheError| Error::Cache { cache: name.clone(), reason };
                let health = cache.check().await.map_err(failed)?;
                Ok::<_, Error>((cache, health))
            };
            let (outcome, inspection) = match &cache.backend {
                BackendConfig::Server(options) => {
                    let (outcome, inspection) = tokio::join!(connection, inspect(options));
                    (outcome, Some(inspection))
                }
                _ => (connection.await, None),
            };
            let mut row = CheckedCache {
                name,
                is_default: *name == config.default,
                config: cache,
                has_writers: has_writers(config, name),
                health: None,
                inspection,
                problems: Vec::new(),
                advice: Vec::new(),
            };
            match outcome {
                Ok((cache, health)) => {
                    connected.push(cache);
                    row.health = Some(health);
                }
                Err(Error::Cache { reason, .. }) => row.problems.push(Finding::of_cache(reason.to_string())),
                Err(error) => row.problems.push(Finding::of_cache(error.to_string())),
            }
            caches.push(row);
        }
        let undecided: Vec<_> = caches.iter().map(|cache| findings::undecided(cache, &caches)).collect();
        for (cache, undecided) in caches.iter_mut().zip(undecided) {
            findings::add(cache);
            cache.advice.extend(undecided);
        }
        let checked = Checked { file, config, caches, plugins: plugins::check(config) };
        if self.json {
            crate::json::print(&json::object(&checked))?;
        } else {
            writeln!(std::io::stdout(), "{}", table::tables(&checked))?;
        }
        for cache in &checked.caches {
            cache.problems.iter().for_each(|problem| print_error(&problem.line(cache.name)));
        }
        checked.plugins.iter().filter_map(|plugin| plugin.problem.as_deref()).for_each(print_error);
        Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl CheckedCache<'_> {
    fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn options(&self) -> Option<&ServerOptions> {
        match &self.config.backend {
            BackendConfig::Server(options) => Some(options),
            _ => None,
        }
    }

    /// The near tier, if the configuration has one.
    fn near(&self) -> Option<&NearOptions> {
        self.options()?.near.as_ref()
    }

    /// True if all servers announce changes of what is read, so that values are kept near.
    fn is_kept_near(&self) -> bool {
        let servers = self.inspection.iter().flat_map(|inspection| &inspection.servers);
        let mut commands = servers.map(|server| server.commands.as_slice()).peekable();
        let is_allowed = |report: &CommandReport| !report.command.is_for_near() || report.refusal.is_none();
        commands.peek().is_some() && commands.all(|all| !all.is_empty() && all.iter().all(is_allowed))
    }

    /// Its type in the configuration.
    fn type_name(&self) -> &'static str {
        match &self.config.backend {
            BackendConfig::Ram { .. } => "ram",
            BackendConfig::Server(options) => options.kind.type_name(),
            _ => "unknown",
        }
    }
}

/// True unless all plugins that may open the cache are read-only, and there is such a plugin. A plugin without a table
/// may write.
fn has_writers(config: &Config, cache: &str) -> bool {
    let mut grants = config.plugins.values().filter(|grant| grant.may_open(cache)).peekable();
    grants.peek().is_none() || grants.any(|grant| grant.access == Access::ReadWrite)
}
