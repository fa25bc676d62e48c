//! The plugins of the configuration: what they may do, and whether their files are there.

use std::path::Path;

use larder_host::cache::Access;
use larder_host::config::{Config, Grant, UnlistedPlugins};
use larder_host::runtime::Plugin;
use serde_json::{Value, json};

use super::table::{none, table};

/// A plugin that has a table.
#[derive(Debug)]
pub(super) struct CheckedPlugin<'a> {
    name: &'a str,
    grant: &'a Grant,
    /// The path prefix that it serves, and its file.
    served: Option<(&'a str, &'a Path)>,
    /// Why its file cannot be served.
    pub(super) problem: Option<String>,
}

/// Checks the files of all plugins that have one, without compiling them.
pub(super) fn check(config: &Config) -> Vec<CheckedPlugin<'_>> {
    let served = |name: &str| {
        let route = config.routes.iter().find(|route| route.plugin == name);
        route.map(|route| (route.route.as_str(), route.path.as_path()))
    };
    let plugins = config.plugins.iter().map(|(name, grant)| {
        let served = served(name);
        let outcome = served.map(|(_, path)| Plugin::check_file(path, &config.sandbox.loading));
        let problem = outcome.and_then(Result::err).map(|error| error.to_string());
        CheckedPlugin { name, grant, served, problem }
    });
    plugins.collect()
}

/// A row for each plugin with a table, and one for all others. `None` if no plugin has a table and others are allowed.
pub(super) fn rows(plugins: &[CheckedPlugin<'_>], config: &Config) -> Option<String> {
    if plugins.is_empty() && config.unlisted_plugins == UnlistedPlugins::Allow {
        return None;
    }
    let status = |plugin: &CheckedPlugin<'_>| match (&plugin.served, &plugin.problem) {
        (None, _) => none(),
        (Some(_), None) => "ok".to_owned(),
        (Some(_), Some(_)) => "failed".to_owned(),
    };
    let listed = plugins.iter().map(|plugin| row(plugin.name, plugin.grant, plugin.served, status(plugin)));
    // No table can have this name without quotes around it.
    let others = row("(others)", &config.grant("(others)"), None, none());
    let head = ["PLUGIN", "CACHES", "ACCESS", "NAMESPACE", "OUTGOING HOSTS", "ROUTE", "FILE", "STATUS"];
    Some(table(head, listed.chain([others])))
}

fn row(name: &str, grant: &Grant, served: Option<(&str, &Path)>, status: String) -> [String; 8] {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let hosts: Vec<String> = grant.outgoing_hosts.iter().map(ToString::to_string).collect();
    [
        name.to_owned(),
        grant.caches.as_deref().map_or_else(|| "all".to_owned(), list),
        access(grant.access).to_owned(),
        grant.namespace.as_ref().map_or_else(none, ToString::to_string),
        list(&hosts),
        served.map_or_else(none, |(route, _)| route.to_owned()),
        served.map_or_else(none, |(_, path)| path.display().to_string()),
        status,
    ]
}

/// Its name in the configuration.
fn access(access: Access) -> &'static str {
    match access {
        Access::ReadWrite => "read-write",
        Access::ReadOnly => "read-only",
    }
}

/// The JSON of a plugin with a table.
pub(super) fn json(plugin: &CheckedPlugin<'_>, config: &Config) -> Value {
    let CheckedPlugin { name, grant, served, problem } = plugin;
    json!({
        "name": name,
        "caches": config.caches.keys().filter(|name| grant.may_open(name)).collect::<Vec<_>>(),
        "default": grant.default,
        "access": access(grant.access),
        "namespace": grant.namespace.as_ref().map(ToString::to_string),
        "outgoing_hosts": grant.outgoing_hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "route": served.map(|(route, _)| route),
        "path": served.map(|(_, path)| path.display().to_string()),
        "problem": problem,
        "reuse": grant.reuse.map(|reuse| json!({
            "requests": reuse.requests,
            "concurrent": reuse.concurrent,
            "idle_seconds": reuse.idle.as_secs_f64(),
            "max_age_seconds": reuse.max_age.as_secs_f64(),
        })),
    })
}
